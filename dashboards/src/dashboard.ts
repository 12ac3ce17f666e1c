// What dashboards are made of: variables, and panels in rows, as Grafana's Foundation SDK builds them.

import * as sdk from "@grafana/grafana-foundation-sdk/dashboard";

import type { AnyPanel } from "./panels.js";

export const DATASOURCE = { type: "prometheus", uid: "${datasource}" };

/** What can be chosen by a label's values. */
export interface Choice {
  /** Of the variable. */
  name: string;
  /** As it stands above the dashboard. */
  title: string;
  label: string;
  /** What of the label's value is chosen, if it is not all of it: its group. As Grafana writes regexes. */
  regex?: string;
  /** Of the series that were chosen. */
  matcher: string;
  /** What "All" means; `.*` takes series without the label as well. */
  all: ".*" | ".+";
}

/** A choice that stands above a dashboard. Each takes its values from what those before it leave. */
export interface Variable extends Choice {
  /** The series that have the label: a selector. */
  from: string;
}

export interface Row {
  title: string;
  panels: AnyPanel[];
}

export interface Dashboard {
  /** Its file's name, and the end of its uid. */
  name: string;
  title: string;
  description: string;
  /** Whose cluster, namespace, workload and pod its variables choose. */
  about: "services" | "agent" | "injector";
  variables: Variable[];
  rows: Row[];
  /** Rules of the linter that it cannot keep, each with the reason, and the panels that it is about if it is not about all. */
  exclusions: Record<string, { reason: string; panels?: string[] }>;
}

/** All dashboards have it, so that they are found. */
const TAG = "sidelight";

export const uid = (name: string) => `sidelight-${name}`.replace("sidelight-sidelight", "sidelight");

/** A dashboard with links to the others. */
export function build(source: Dashboard, all: Dashboard[]): sdk.Dashboard {
  const dashboard = new sdk.DashboardBuilder(source.title)
    .id(null)
    .uid(uid(source.name))
    .description(source.description)
    .tags([TAG])
    .timezone("browser")
    .refresh("1m")
    .time({ from: "now-1h", to: "now" })
    .readonly()
    .tooltip(sdk.DashboardCursorSync.Crosshair)
    .withVariable(new sdk.DatasourceVariableBuilder("datasource").label("Data source").type("prometheus").regex(""));
  for (const variable of source.variables) dashboard.withVariable(queryVariable(variable));
  for (const other of all.filter((other) => other !== source)) dashboard.link(link(source, other));
  let id = 1;
  for (const row of source.rows) {
    dashboard.withRow(new sdk.RowBuilder(row.title).id(id++));
    for (const panel of row.panels) dashboard.withPanel(panel.id(id++));
  }
  return without(dashboard.build());
}

/** Leads from one dashboard to another. What is chosen goes along as far as it means the same there. */
function link(from: Dashboard, to: Dashboard): sdk.DashboardLinkBuilder {
  const isSame = from.about === to.about;
  const url = `/d/${uid(to.name)}` + (isSame ? "" : "?${datasource:queryparam}&${cluster:queryparam}");
  return new sdk.DashboardLinkBuilder(to.title)
    .type(sdk.DashboardLinkType.Link)
    .url(url)
    .icon("dashboard")
    .includeVars(isSame)
    .keepTime(true);
}

/** Takes away what the SDK gives to all: what Grafana's own types do not have, and a place for links where nobody sees them. */
function without(dashboard: sdk.Dashboard): sdk.Dashboard {
  for (const variable of dashboard.templating?.list ?? []) {
    delete variable.auto;
    delete variable.auto_min;
    delete variable.auto_count;
  }
  for (const link of dashboard.links ?? []) delete link.placement;
  for (const panel of dashboard.panels ?? []) {
    if (panel.type === "table") delete (panel as sdk.Panel).options.footer;
  }
  return dashboard;
}

function queryVariable({ name, title, label, regex, from, all }: Variable): sdk.QueryVariableBuilder {
  const variable = new sdk.QueryVariableBuilder(name)
    .label(title)
    .datasource(DATASOURCE)
    .query(`label_values(${from}, ${label})`)
    .refresh(sdk.VariableRefresh.OnTimeRangeChanged)
    .sort(sdk.VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue(all)
    .current({ selected: true, text: ["All"], value: ["$__all"] });
  return regex ? variable.regex(regex) : variable;
}

/** Variables of which each is narrowed by those before it. */
export function chain(series: string, choices: Choice[]): Variable[] {
  return choices.map((choice, index) => {
    const before = choices.slice(0, index);
    return { ...choice, from: before.length === 0 ? series : `${series}{${matchers(...before)}}` };
  });
}

/** The choice of a label's values by a variable of the same name. */
const byLabel = (name: string, title: string, all: Choice["all"]): Choice => ({
  name,
  title,
  label: name,
  matcher: `${name}=~"$${name}"`,
  all,
});

export const CLUSTER = byLabel("cluster", "Cluster", ".*");
export const NAMESPACE = byLabel("namespace", "Namespace", ".*");
export const WORKLOAD = byLabel("workload", "Workload", ".*");
export const POD = byLabel("pod", "Pod", ".*");
export const JOB = byLabel("job", "Job", ".+");
export const INSTANCE = byLabel("instance", "Instance", ".+");

/** The workload of series without such a label: it is what stands in `job` behind the namespace. */
export const WORKLOAD_IN_JOB: Choice = {
  ...WORKLOAD,
  label: "job",
  regex: "/^(?:.*\\/)?(.+)$/",
  matcher: 'job=~"(.*/)?($workload)"',
};

export function matchers(...choices: Choice[]): string {
  return choices.map(({ matcher }) => matcher).join(", ");
}
