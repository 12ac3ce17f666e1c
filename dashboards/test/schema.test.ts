// The rendered dashboards as literals of the types that Grafana itself has, with no property too many.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import ts from "typescript";

import { Model, shown } from "../src/lint.js";
import { ROOT } from "../src/render.js";
import { dashboards } from "./model.js";

const SCHEMA = "@grafana/schema/dist/esm/raw/composable";
const HEAD = `
import type { Dashboard } from "@grafana/schema";
import type { Options as bargauge } from "${SCHEMA}/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type { Options as stat } from "${SCHEMA}/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as table } from "${SCHEMA}/table/panelcfg/x/TablePanelCfg_types.gen";
import type { FieldConfig, Options as timeseries } from "${SCHEMA}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** In JSON a value of an enum is its text or number. */
type Json<T> = T extends string ? \`\${T}\` : T extends number | boolean | null | undefined ? T
  : T extends (infer E)[] ? Json<E>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
`;

/** Mistakes that the compiler finds in a dashboard. */
function mistakes(name: string, model: Model): string[] {
  const directory = join(ROOT, "build/schema");
  mkdirSync(directory, { recursive: true });
  const lines = [HEAD, `export const dashboard: Json<Dashboard> = ${JSON.stringify(model)};`];
  for (const panel of shown(model)) {
    const { options, fieldConfig } = panel as {
      options?: unknown;
      fieldConfig?: { defaults: { custom?: unknown } };
    };
    lines.push(`export const options${panel.id}: Json<Partial<${panel.type}>> = ${JSON.stringify(options ?? {})};`);
    if (panel.type !== "timeseries") continue;
    lines.push(
      `export const field${panel.id}: Json<FieldConfig> = ${JSON.stringify(fieldConfig?.defaults.custom ?? {})};`,
    );
  }
  const path = join(directory, `${name}.ts`);
  writeFileSync(path, lines.join("\n"));
  const program = ts.createProgram([path], {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    types: [],
  });
  return ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
}

for (const { file, model } of dashboards) {
  test(`${file} is of the types of @grafana/schema`, () => {
    assert.deepEqual(mistakes(file, model), []);
  });
}

test("what is not of these types is found", () => {
  const first = dashboards[0];
  assert.ok(first);
  const changes: ((model: Model) => object)[] = [
    (model) => Object.assign(model, { refresh: 60 }),
    (model) => Object.assign(model.panels[1] ?? {}, { gridPos: { x: 0, y: 0, w: "4", h: 4 } }),
    (model) => Object.assign(model.panels[1] ?? {}, { options: { colorMode: "valu" } }),
  ];
  for (const change of changes) {
    const model = structuredClone(first.model);
    change(model);
    assert.notDeepEqual(mistakes("wrong", model), [], change.toString());
  }
});
