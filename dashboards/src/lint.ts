// The rules of Grafana's dashboard linter (github.com/grafana/dashboard-linter), by their names, each at least as strict
// as there: panels of every kind are looked at, and a warning is a failure.
//
// The two rules about LogQL have nothing to look at: no panel asks Loki.

import { Selector, expand, mistake, selectors } from "./promql.js";
import { UNITS } from "./units.js";

/** A dashboard as it stands in its file. */
export interface Model {
  title: string;
  uid: string;
  description?: string;
  editable?: boolean;
  tags?: string[];
  links?: { url?: string; includeVars?: boolean; keepTime?: boolean }[];
  templating: { list: Template[] };
  panels: Panel[];
}

export interface Template {
  name: string;
  type: string;
  label?: string;
  query?: unknown;
  regex?: string;
  datasource?: { uid?: string };
  multi?: boolean;
  allValue?: string;
  refresh?: number;
}

export interface Target {
  refId: string;
  expr?: string;
  legendFormat?: string;
  instant?: boolean;
  range?: boolean;
  datasource?: { type?: string; uid?: string };
}

export interface Panel {
  id: number;
  type: string;
  title?: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  datasource?: { uid?: string };
  targets?: Target[];
  transformations?: { id: string; options: Record<string, unknown> }[];
  fieldConfig?: {
    defaults: {
      unit?: string;
      decimals?: number;
      thresholds?: { steps: { value: number | null; color: string }[] };
    };
    overrides?: { matcher: { id: string; options: string }; properties: { id: string; value: unknown }[] }[];
  };
}

export interface Finding {
  rule: string;
  panel?: string;
  text: string;
}

type Report = (text: string, panel?: Panel) => void;
type Check = (dashboard: Model, report: Report) => void;

const variable = (dashboard: Model, name: string) => dashboard.templating.list.find((each) => each.name === name);
const SOURCES = ["$datasource", "${datasource}"];

/** Panels that show something: all but rows. */
export const shown = (dashboard: Model) => dashboard.panels.filter(({ type }) => type !== "row");

function templateDatasource(dashboard: Model, report: Report): void {
  const sources = dashboard.templating.list.filter(({ type }) => type === "datasource");
  if (sources.length !== 1) report(`has ${sources.length} variables for the data source, not one`);
  for (const { name, label } of sources) {
    if (name !== "datasource") report(`the variable for the data source is called ${name}`);
    if (label !== "Data source") report(`the variable for the data source has the label ${label}`);
  }
}

const templateOf =
  (name: string, label: string): Check =>
  (dashboard, report) => {
    const template = variable(dashboard, name);
    if (!template) return report(`has no variable ${name}`);
    if (template.type !== "query") report(`${name} is no query`);
    if (!SOURCES.includes(template.datasource?.uid ?? "")) report(`${name} does not use $datasource`);
    if (template.label !== label) report(`${name} is labelled ${template.label}`);
    if (!template.multi) report(`${name} takes one value only`);
    if (template.allValue !== ".+") report(`"All" of ${name} is ${template.allValue}`);
  };

const queries = (dashboard: Model) => dashboard.templating.list.filter(({ type }) => type === "query");

function templateLabelPromql(dashboard: Model, report: Report): void {
  for (const { name, query } of queries(dashboard)) {
    const call = typeof query === "string" ? /^label_values\((.+), *(\w+)\)$/s.exec(query) : null;
    if (!call?.[1]) report(`${name} is no label_values(): ${JSON.stringify(query)}`);
    else if (mistake(expand(call[1]))) report(`${name} does not parse: ${mistake(expand(call[1]))}`);
  }
}

function templateReload(dashboard: Model, report: Report): void {
  for (const { name, refresh } of queries(dashboard)) {
    if (refresh !== 2) report(`${name} is not asked for again when the time changes`);
  }
}

const eachPanel =
  (check: (panel: Panel, report: (text: string) => void) => void): Check =>
  (dashboard, report) => {
    for (const panel of shown(dashboard)) check(panel, (text) => report(text, panel));
  };

const panelDatasource = eachPanel((panel, report) => {
  const used = [panel.datasource?.uid, ...(panel.targets ?? []).map(({ datasource }) => datasource?.uid)];
  for (const uid of used) if (!SOURCES.includes(uid ?? "")) report(`uses the data source ${uid}`);
});

const panelTitle = eachPanel(({ title, description }, report) => {
  if (!title) report("has no title");
  if (!description) report("has no description");
});

const panelUnits = eachPanel(({ fieldConfig }, report) => {
  const overrides = (fieldConfig?.overrides ?? []).flatMap(({ properties }) => properties);
  const units = [fieldConfig?.defaults.unit, ...overrides.filter(({ id }) => id === "unit").map(({ value }) => value)];
  for (const unit of units) if (!UNITS.has(String(unit))) report(`has the unit ${String(unit)}`);
});

const panelTargets = eachPanel(({ targets }, report) => {
  if (!targets?.length) report("asks for nothing");
});

const eachTarget = (check: (target: Target, report: (text: string) => void) => void): Check =>
  eachPanel((panel, report) => {
    for (const target of panel.targets ?? []) check(target, (text) => report(`${target.refId}: ${text}`));
  });

const targetPromql = eachTarget(({ expr }, report) => {
  const found = mistake(expand(expr ?? ""));
  if (found) report(`does not parse: ${found}`);
});

const noLoki = eachTarget(({ datasource }, report) => {
  if (datasource?.type !== "prometheus") report(`asks ${datasource?.type}: no rule here knows its language`);
});

/** Ranges are told apart by values that stand in no query. */
const MAGIC = { __rate_interval: "8869990787ms", __interval: "4867856611ms", __range: "6069770749ms" };

const eachSelector = (check: (selector: Selector, report: (text: string) => void) => void): Check =>
  eachTarget(({ expr }, report) => {
    for (const selector of selectors(expand(expr ?? "", MAGIC))) check(selector, report);
  });

const rateInterval = eachSelector(({ name, range, ...selector }, report) => {
  if (range === undefined) return;
  if (!selector.function) report(`${name}[${range}] is handed to no function`);
  const isRate = selector.function === "rate" || selector.function === "irate";
  if (isRate && range !== MAGIC.__rate_interval) report(`${name} has not the range $__rate_interval`);
});

const targetMatcher = (label: string): Check =>
  eachSelector(({ name, matchers }, report) => {
    const is = matchers.some(
      (matcher) => matcher.label === label && matcher.op === "=~" && matcher.value === `$${label}`,
    );
    if (!is) report(`${name} has no ${label}=~"$${label}"`);
  });

const counterAgg = eachSelector(({ name, range, ...selector }, report) => {
  if (!name.endsWith("_total")) return;
  const isRate = ["rate", "irate", "increase"].includes(selector.function ?? "");
  if (range === undefined || !isRate) report(`the counter ${name} is in no rate, irate or increase`);
});

const uneditable: Check = ({ editable }, report) => {
  if (editable !== false) report("is editable");
};

export const RULES: Record<string, Check> = {
  "template-datasource-rule": templateDatasource,
  "template-job-rule": templateOf("job", "Job"),
  "template-instance-rule": templateOf("instance", "Instance"),
  "template-label-promql-rule": templateLabelPromql,
  "template-on-time-change-reload-rule": templateReload,
  "panel-datasource-rule": panelDatasource,
  "panel-title-description-rule": panelTitle,
  "panel-units-rule": panelUnits,
  "panel-no-targets-rule": panelTargets,
  "target-logql-rule": noLoki,
  "target-logql-auto-rule": noLoki,
  "target-promql-rule": targetPromql,
  "target-rate-interval-rule": rateInterval,
  "target-job-rule": targetMatcher("job"),
  "target-instance-rule": targetMatcher("instance"),
  "target-counter-agg-rule": counterAgg,
  "uneditable-dashboard": uneditable,
};

export function lint(dashboard: Model): Finding[] {
  const findings: Finding[] = [];
  for (const [rule, check] of Object.entries(RULES)) {
    check(dashboard, (text, panel) => findings.push({ rule, ...(panel && { panel: panel.title ?? "" }), text }));
  }
  return findings;
}
