/** Units of Grafana that dashboards here use, and may: https://grafana.com/docs/grafana/latest/panels-visualizations/configure-standard-options/#unit */
export const UNITS = new Set([
  "none",
  "short",
  "percentunit",
  "bytes",
  "Bps",
  "s",
  "reqps",
  "ops",
  "cps",
  "bool_yes_no",
]);
