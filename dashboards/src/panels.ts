// Panels: each has a title, a description, a unit and a width of 24 columns.

import * as bargauge from "@grafana/grafana-foundation-sdk/bargauge";
import * as common from "@grafana/grafana-foundation-sdk/common";
import * as sdk from "@grafana/grafana-foundation-sdk/dashboard";
import * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import * as stat from "@grafana/grafana-foundation-sdk/stat";
import * as table from "@grafana/grafana-foundation-sdk/table";
import * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

import { DATASOURCE } from "./dashboard.js";
import { tidy } from "./rules.js";

export type AnyPanel = timeseries.PanelBuilder | stat.PanelBuilder | table.PanelBuilder | bargauge.PanelBuilder;

export interface Spec {
  title: string;
  description: string;
  unit: string;
  width: number;
  height?: number;
  /** When the panel may have nothing to show: "Empty when ..." in its description, which the query runner takes for that. */
  emptyWhen?: string;
  /** From which values on it is orange and red; with `low`, up to which. */
  warn?: number;
  bad?: number;
  low?: boolean;
  max?: number;
  decimals?: number;
  /** Of a graph: areas that add up. */
  stack?: boolean;
}

/** A query and the name of what it gives. */
export type Query = readonly [expr: string, legend: string];

/** One column of a table: a label of the queries' results, or the value of one. */
export interface Column {
  title: string;
  label?: string;
  expr?: string;
  unit?: string;
  decimals?: number;
}

const HEIGHT = 8;
const STAT_HEIGHT = 4;

/** What all panels have in common. */
interface Common<P> {
  title(title: string): P;
  description(text: string): P;
  unit(unit: string): P;
  datasource(ref: typeof DATASOURCE): P;
  span(width: number): P;
  height(height: number): P;
  max(max: number): P;
  min(min: number): P;
  decimals(decimals: number): P;
  thresholds(thresholds: sdk.ThresholdsConfigBuilder): P;
}

function dressed<P extends Common<P>>(panel: P, spec: Spec, height: number): P {
  const { title, description, emptyWhen, unit, width } = spec;
  panel
    .title(title)
    .description(emptyWhen ? `${description} Empty when ${emptyWhen}.` : description)
    .unit(unit)
    .datasource(DATASOURCE)
    .span(width)
    .height(spec.height ?? height)
    .thresholds(thresholds(spec));
  if (spec.max !== undefined) panel.max(spec.max);
  if (spec.decimals !== undefined) panel.decimals(spec.decimals);
  return panel;
}

function thresholds({ warn, bad, low }: Spec): sdk.ThresholdsConfigBuilder {
  const steps: sdk.Threshold[] = [{ value: null, color: low && bad !== undefined ? "red" : "green" }];
  if (low) {
    if (bad !== undefined) steps.push({ value: bad, color: warn === undefined ? "green" : "orange" });
    if (warn !== undefined) steps.push({ value: warn, color: "green" });
  } else {
    if (warn !== undefined) steps.push({ value: warn, color: "orange" });
    if (bad !== undefined) steps.push({ value: bad, color: "red" });
  }
  return new sdk.ThresholdsConfigBuilder().mode(sdk.ThresholdsMode.Absolute).steps(steps);
}

function query([expr, legend]: Query, index: number): prometheus.DataqueryBuilder {
  return new prometheus.DataqueryBuilder()
    .refId(String.fromCharCode("A".charCodeAt(0) + index))
    .datasource(DATASOURCE)
    .expr(tidy(expr))
    .legendFormat(legend);
}

/** Lines over time. */
export function graph(spec: Spec, ...queries: Query[]): AnyPanel {
  const panel = dressed(new timeseries.PanelBuilder(), spec, HEIGHT)
    .min(0)
    .lineWidth(1)
    .fillOpacity(spec.stack ? 30 : 5)
    .showPoints(common.VisibilityMode.Never)
    .legend(
      new common.VizLegendOptionsBuilder()
        .displayMode(common.LegendDisplayMode.List)
        .placement(common.LegendPlacement.Bottom)
        .showLegend(true)
        .calcs([]),
    )
    .tooltip(
      new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending),
    );
  if (spec.stack) panel.stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group("A"));
  if (spec.warn !== undefined || spec.bad !== undefined) {
    panel.thresholdsStyle(new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.Dashed));
  }
  queries.forEach((each, index) => panel.withTarget(query(each, index).range()));
  return panel;
}

/** One number, as it is now. */
export function number(spec: Spec, expr: string, legend = ""): AnyPanel {
  return dressed(new stat.PanelBuilder(), spec, STAT_HEIGHT)
    .graphMode(common.BigValueGraphMode.None)
    .colorMode(common.BigValueColorMode.Value)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(["lastNotNull"]).values(false))
    .withTarget(query([expr, legend], 0).instant());
}

/** A bar for each series, as it is now. */
export function bars(spec: Spec, ...queries: Query[]): AnyPanel {
  const panel = dressed(new bargauge.PanelBuilder(), spec, HEIGHT)
    .min(0)
    .orientation(common.VizOrientation.Horizontal)
    .displayMode(common.BarGaugeDisplayMode.Basic)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(["lastNotNull"]).values(false));
  queries.forEach((each, index) => panel.withTarget(query(each, index).instant()));
  return panel;
}

/** Rows, one for each set of labels that the queries give. */
export function rows(spec: Spec, columns: Column[], sortBy: string): AnyPanel {
  const panel = dressed(new table.PanelBuilder(), spec, HEIGHT);
  const names: Record<string, string> = {};
  const order: Record<string, number> = {};
  let queries = 0;
  columns.forEach((column, position) => {
    let field = column.label ?? "";
    if (column.expr !== undefined) {
      const target = query([column.expr, ""], queries++).instant().format(prometheus.PromQueryFormat.Table);
      field = `Value #${target.build().refId}`;
      panel.withTarget(target);
    }
    names[field] = column.title;
    order[field] = position;
    const properties = [
      { id: "unit", value: column.unit },
      { id: "decimals", value: column.decimals },
    ].filter(({ value }) => value !== undefined);
    if (properties.length > 0) panel.overrideByName(column.title, properties as sdk.DynamicConfigValue[]);
  });
  if (queries === 1) {
    names.Value = names["Value #A"] ?? "";
    order.Value = order["Value #A"] ?? 0;
  }
  return panel
    .withTransformation({ id: "merge", options: {} })
    .withTransformation({
      id: "organize",
      options: { excludeByName: { Time: true }, indexByName: order, renameByName: names },
    })
    .sortBy([new common.TableSortByFieldStateBuilder().displayName(sortBy).desc(true)]);
}
