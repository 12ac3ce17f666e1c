// What dashboards are made of: variables, and panels in rows, as Grafana's Foundation SDK builds them.

import * as sdk from "@grafana/grafana-foundation-sdk/dashboard";

import type { AnyPanel } from "./panels.js";

export const DATASOURCE = { type: "prometheus", uid: "${datasource}" };

/** A variable whose values are those of a label. Each takes its choice from what those before it leave. */
export interface Variable {
  name: string;
  /** As it stands above the dashboard. */
  title: string;
  /** The series that have the label: a selector. */
  from: string;
  /** What "All" means; `.*` takes series without the label as well. */
  all: ".*" | ".+";
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
  variables: Variable[];
  rows: Row[];
  /** Rules of the linter that it cannot keep, each with the reason, and the panels that it is about if it is not about all. */
  exclusions: Record<string, { reason: string; panels?: string[] }>;
}

/** All dashboards have it: by it they link to each other. */
const TAG = "sidelight";

export const uid = (name: string) => `sidelight-${name}`.replace("sidelight-sidelight", "sidelight");

export function build(source: Dashboard): sdk.Dashboard {
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
    .link(
      new sdk.DashboardLinkBuilder("Sidelight")
        .type(sdk.DashboardLinkType.Dashboards)
        .tags([TAG])
        .includeVars(true)
        .keepTime(true)
        .asDropdown(false),
    )
    .withVariable(new sdk.DatasourceVariableBuilder("datasource").label("Data source").type("prometheus").regex(""));
  for (const variable of source.variables) dashboard.withVariable(queryVariable(variable));
  let id = 1;
  for (const row of source.rows) {
    dashboard.withRow(new sdk.RowBuilder(row.title).id(id++));
    for (const panel of row.panels) dashboard.withPanel(panel.id(id++));
  }
  return without(dashboard.build());
}

/** Takes away what the SDK gives to all, and Grafana's own types do not have. */
function without(dashboard: sdk.Dashboard): sdk.Dashboard {
  for (const variable of dashboard.templating?.list ?? []) {
    delete variable.auto;
    delete variable.auto_min;
    delete variable.auto_count;
  }
  for (const panel of dashboard.panels ?? []) {
    if (panel.type === "table") delete (panel as sdk.Panel).options.footer;
  }
  return dashboard;
}

function queryVariable({ name, title, from, all }: Variable): sdk.QueryVariableBuilder {
  return new sdk.QueryVariableBuilder(name)
    .label(title)
    .datasource(DATASOURCE)
    .query(`label_values(${from}, ${name})`)
    .refresh(sdk.VariableRefresh.OnTimeRangeChanged)
    .sort(sdk.VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue(all)
    .current({ selected: true, text: ["All"], value: ["$__all"] });
}

/** Variables of which each is narrowed by those before it. */
export function chain(series: string, variables: { name: string; title: string; all: ".*" | ".+" }[]): Variable[] {
  return variables.map((variable, index) => {
    const before = variables.slice(0, index).map(({ name }) => `${name}=~"$${name}"`);
    return { ...variable, from: before.length === 0 ? series : `${series}{${before.join(", ")}}` };
  });
}

export const CLUSTER = { name: "cluster", title: "Cluster", all: ".*" } as const;
export const NAMESPACE = { name: "namespace", title: "Namespace", all: ".*" } as const;
export const WORKLOAD = { name: "workload", title: "Workload", all: ".*" } as const;
export const POD = { name: "pod", title: "Pod", all: ".*" } as const;
export const JOB = { name: "job", title: "Job", all: ".+" } as const;
export const INSTANCE = { name: "instance", title: "Instance", all: ".+" } as const;

/** Matchers of labels by the variables of the same name. */
export function matchers(...labels: string[]): string {
  return labels.map((label) => `${label}=~"$${label}"`).join(", ");
}
