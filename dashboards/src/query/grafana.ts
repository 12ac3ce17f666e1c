// What Grafana does with a dashboard before it asks: it finds the values of variables, and puts them into queries.

import type { Model, Panel, Target, Template } from "../lint.js";
import { shown } from "../lint.js";
import type { Prometheus, Series, Window } from "./prometheus.js";

export interface Settings {
  window: Window;
  /** Of the data source, in seconds. */
  scrapeInterval: number;
}

/** Values for the variables of a dashboard, by name, as they stand in a query. */
export type Values = Map<string, string>;

export interface Answer {
  panel: Panel;
  /** Of each query its series, or what went wrong. */
  results: { target: Target; query: string; series: Series[]; error?: string }[];
  state: "full" | "empty" | "excused" | "failed";
  /** The condition under which the panel may be empty, if it names one. */
  condition?: string;
}

/** By which a panel's description says when it may be empty. */
const CONDITION = /Empty when (.+)\.$/s;

/** Every value that there is of each variable, chosen one by one; a variable without values stands for all. */
export async function variables(model: Model, prometheus: Prometheus, settings: Settings): Promise<Values> {
  const values: Values = new Map(globals(settings));
  for (const template of model.templating.list.filter(({ type }) => type === "query")) {
    const call = /^label_values\((.+), *(\w+)\)$/s.exec(String(template.query));
    const [, selector, label] = call ?? [];
    if (!selector || !label) throw new Error(`$${template.name} is no label_values()`);
    const found = await prometheus.labelValues(label, expand(selector, values), settings.window);
    values.set(template.name, chosen(template, parts(found, template.regex)));
  }
  return values;
}

/** What a variable's regex takes of a label's values: its group, each once. */
function parts(found: string[], regex?: string): string[] {
  if (!regex) return found.filter((value) => value !== "");
  const [, pattern] = /^\/(.+)\/$/.exec(regex) ?? [];
  if (!pattern) throw new Error(`${regex} is no regex as Grafana writes it`);
  return [...new Set(found.flatMap((value) => new RegExp(pattern).exec(value)?.[1] ?? []))];
}

function chosen(template: Template, found: string[]): string {
  if (found.length > 0) return `(${found.map(escape).join("|")})`;
  if (template.allValue === ".+") throw new Error(`$${template.name} has no value`);
  return template.allValue ?? "";
}

/** A value as a part of a regex within a text of PromQL. */
function escape(value: string): string {
  return value.replace(/[\\^$*+?.()|[\]{}]/g, "\\\\$&").replace(/"/g, '\\"');
}

function globals({ window, scrapeInterval }: Settings): [string, string][] {
  const range = window.end - window.start;
  return [
    ["__rate_interval", `${Math.max(window.step + scrapeInterval, 4 * scrapeInterval)}s`],
    ["__interval", `${window.step}s`],
    ["__range", `${range}s`],
  ];
}

export function expand(query: string, values: Values): string {
  return query.replace(/\$(\w+)|\$\{(\w+)\}/g, (text, a?: string, b?: string) => values.get(a ?? b ?? "") ?? text);
}

/** Asks all queries of a dashboard. */
export async function ask(model: Model, prometheus: Prometheus, settings: Settings): Promise<Answer[]> {
  const values = await variables(model, prometheus, settings);
  const answers: Answer[] = [];
  for (const panel of shown(model)) {
    const results: Answer["results"] = [];
    for (const target of panel.targets ?? []) {
      const query = expand(target.expr ?? "", values);
      const asked = target.instant
        ? prometheus.instant(query, settings.window)
        : prometheus.range(query, settings.window);
      results.push(
        await asked.then(
          (series) => ({ target, query, series }),
          (error: unknown) => ({ target, query, series: [], error: String(error) }),
        ),
      );
    }
    answers.push(judged(panel, results));
  }
  return answers;
}

function judged(panel: Panel, results: Answer["results"]): Answer {
  const condition = CONDITION.exec(panel.description ?? "")?.[1];
  const hasValue = ({ series }: { series: Series[] }) =>
    series.some(({ points }) => points.some(([, value]) => !Number.isNaN(value)));
  const state = results.some(({ error }) => error)
    ? "failed"
    : results.length > 0 && results.every(hasValue)
      ? "full"
      : condition
        ? "excused"
        : "empty";
  return { panel, results, state, ...(condition && { condition }) };
}
