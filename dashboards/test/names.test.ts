import assert from "node:assert/strict";
import { test } from "node:test";

import { shown } from "../src/lint.js";
import { AGENT, DIALECTS, INJECTOR, KUBERNETES, LANGUAGES, NODE, PROCESS } from "../src/metrics.js";
import { expand, names } from "../src/promql.js";
import { dashboards, read, recordings, rules } from "./model.js";

const KNOWN = new Set([
  ...[AGENT, NODE, INJECTOR, PROCESS, DIALECTS, LANGUAGES, KUBERNETES].flat(),
  ...recordings.map(({ record }) => record),
]);

const queries = dashboards.flatMap(({ file, model }) => [
  ...shown(model).flatMap((panel) =>
    (panel.targets ?? []).map((target) => [`${file}: ${panel.title}`, target.expr ?? ""] as const),
  ),
  ...model.templating.list
    .filter(({ type }) => type === "query")
    .map(
      ({ name, query }) => [`${file}: $${name}`, String(query).replace(/^label_values\((.+), *\w+\)$/s, "$1")] as const,
    ),
]);

const expressions = rules.map((rule) => ["alert" in rule ? rule.alert : rule.record, rule.expr] as const);

test("every metric in a dashboard or a rule is known", () => {
  for (const [where, expr] of [...queries, ...expressions]) {
    const found = names(expand(expr));
    assert.ok(found.length > 0, `${where} names no metric: ${expr}`);
    for (const name of found) assert.ok(KNOWN.has(name), `${where}: ${name} is not known`);
  }
});

test("every metric that is known is used", () => {
  const used = new Set([...queries, ...expressions].flatMap(([, expr]) => names(expand(expr))));
  for (const name of KNOWN) assert.ok(used.has(name), `${name} is in no dashboard and no rule`);
});

const stem = (name: string) => name.replace(/_bucket$/, "");

test("the agent and the injector have the metrics that are said to be theirs", () => {
  // Rows of the tables name several metrics at once, and end with `..._x` in place of what they have in common.
  const documented = [...read("../README.md").matchAll(/^\| (`[a-z_]+`.*?) \|/gm)].flatMap(([, cell = ""]) => {
    const [first = "", ...others] = [...cell.matchAll(/`([a-z_.]+)`/g)].map(([, name = ""]) => name);
    const common = [...first.matchAll(/_/g)].map(({ index }) => first.slice(0, index));
    return [
      first,
      ...others.flatMap((name) => (name.startsWith("...") ? common.map((each) => each + name.slice(3)) : [name])),
    ];
  });
  const ofAgent = new Set(documented.map((name) => `sidelight_${name}`));
  for (const name of AGENT) assert.ok(ofAgent.has(stem(name)), `${name} is not in README.md`);
  const prose = read("../README.md");
  for (const name of NODE) {
    const short = `..._${name.split("_").at(-1)}`;
    assert.ok(prose.includes(`\`${name}`) || prose.includes(`\`${short}`), `${name} is not in README.md`);
  }
  const ofInjector = read("../sidecar-injector/README.md");
  for (const name of INJECTOR) assert.ok(ofInjector.includes(`| \`${stem(name)}`), `${name} is not the injector's`);
  const ofProcess = read("../agent/runtime/src/process.rs");
  for (const name of PROCESS) assert.ok(ofProcess.includes(`"${name}"`), `${name} is not of a process`);
});
