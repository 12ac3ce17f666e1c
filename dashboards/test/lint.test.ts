import assert from "node:assert/strict";
import { test } from "node:test";

import { DASHBOARDS } from "../src/all.js";
import { Finding, Model, RULES, lint } from "../src/lint.js";
import { dashboards } from "./model.js";

function exclusions(file: string) {
  const source = DASHBOARDS.find(({ name }) => `${name}.json` === file);
  assert.ok(source, `${file} has no source`);
  return Object.entries(source.exclusions);
}

function isExcluded({ rule, panel }: Finding, file: string): boolean {
  return exclusions(file).some(([of, { panels }]) => of === rule && (!panels || panels.includes(panel ?? "")));
}

for (const { file, model } of dashboards) {
  test(`${file} keeps the rules of Grafana's linter, but for what it excludes`, () => {
    assert.deepEqual(
      lint(model).filter((finding) => !isExcluded(finding, file)),
      [],
    );
  });

  test(`${file} excludes nothing that it keeps, and says why it excludes`, () => {
    const findings = lint(model);
    for (const [rule, { reason, panels }] of exclusions(file)) {
      assert.ok(reason.length > 20, `${rule} is excluded without a reason`);
      for (const panel of panels ?? [undefined]) {
        const found = findings.some((finding) => finding.rule === rule && (!panel || finding.panel === panel));
        assert.ok(found, `${rule} is excluded for ${panel ?? "the dashboard"}, which keeps it`);
      }
    }
  });
}

test("the linter has seventeen rules", () => {
  assert.equal(Object.keys(RULES).length, 17);
});

/** A dashboard that keeps every rule. */
function kept(): Model {
  const datasource = { type: "prometheus", uid: "${datasource}" };
  const query = (name: string, label: string) => ({
    name,
    label,
    type: "query",
    datasource,
    query: `label_values(up{job=~"$job"}, ${name})`,
    refresh: 2,
    multi: true,
    allValue: ".+",
  });
  return {
    title: "Kept",
    uid: "kept",
    editable: false,
    templating: {
      list: [
        { name: "datasource", label: "Data source", type: "datasource", query: "prometheus" },
        query("job", "Job"),
        query("instance", "Instance"),
      ],
    },
    panels: [
      {
        id: 1,
        type: "timeseries",
        title: "Panel",
        description: "What it shows.",
        gridPos: { x: 0, y: 0, w: 1, h: 1 },
        datasource,
        targets: [
          {
            refId: "A",
            datasource,
            expr: 'rate(a_total{job=~"$job", instance=~"$instance"}[$__rate_interval])',
          },
        ],
        fieldConfig: { defaults: { unit: "short" } },
      },
    ],
  };
}

test("a dashboard that keeps all rules has no findings", () => {
  assert.deepEqual(lint(kept()), []);
});

const SELECTOR = '{job=~"$job", instance=~"$instance"}';

/** What breaks each rule. */
const BREACHES: [rule: string, name: string, change: (model: Model) => void][] = [
  ["template-datasource-rule", "no data source", (model) => model.templating.list.shift()],
  ["template-datasource-rule", "another label", (model) => (model.templating.list[0]!.label = "Source")],
  ["template-job-rule", "no job", (model) => model.templating.list.splice(1, 1)],
  ["template-job-rule", "one value", (model) => (model.templating.list[1]!.multi = false)],
  ["template-instance-rule", "all is nothing", (model) => (model.templating.list[2]!.allValue = ".*")],
  [
    "template-label-promql-rule",
    "a bad query",
    (model) => (model.templating.list[1]!.query = "label_values(up{, job)"),
  ],
  ["template-label-promql-rule", "no function", (model) => (model.templating.list[1]!.query = "up")],
  ["template-on-time-change-reload-rule", "never", (model) => (model.templating.list[1]!.refresh = 0)],
  ["panel-datasource-rule", "a fixed source", (model) => (model.panels[0]!.datasource = { uid: "main" })],
  ["panel-title-description-rule", "no title", (model) => delete model.panels[0]!.title],
  ["panel-title-description-rule", "no description", (model) => delete model.panels[0]!.description],
  ["panel-units-rule", "no unit", (model) => delete model.panels[0]!.fieldConfig],
  ["panel-no-targets-rule", "no query", (model) => (model.panels[0]!.targets = [])],
  ["target-logql-rule", "Loki", (model) => (model.panels[0]!.targets![0]!.datasource!.type = "loki")],
  ["target-promql-rule", "a bad query", (model) => (model.panels[0]!.targets![0]!.expr = `rate(a${SELECTOR}`)],
  ["target-promql-rule", "an empty query", (model) => (model.panels[0]!.targets![0]!.expr = "")],
  [
    "target-rate-interval-rule",
    "a fixed range",
    (model) => (model.panels[0]!.targets![0]!.expr = `rate(a_total${SELECTOR}[5m])`),
  ],
  ["target-job-rule", "no job", (model) => (model.panels[0]!.targets![0]!.expr = 'a{instance=~"$instance"}')],
  [
    "target-job-rule",
    "in one of two",
    (model) => (model.panels[0]!.targets![0]!.expr = `a${SELECTOR} / b{instance=~"$instance"}`),
  ],
  [
    "target-instance-rule",
    "another operator",
    (model) => (model.panels[0]!.targets![0]!.expr = 'a{job=~"$job", instance="$instance"}'),
  ],
  ["target-counter-agg-rule", "as it is", (model) => (model.panels[0]!.targets![0]!.expr = `sum(a_total${SELECTOR})`)],
  ["uneditable-dashboard", "editable", (model) => delete model.editable],
];

for (const [rule, name, change] of BREACHES) {
  test(`${rule} finds: ${name}`, () => {
    const model = kept();
    change(model);
    assert.ok(
      lint(model).some((finding) => finding.rule === rule),
      JSON.stringify(lint(model)),
    );
  });
}
