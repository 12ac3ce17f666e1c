import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "yaml";

import { RUNBOOKS } from "../src/rules.js";
import { alerts, list, read } from "./model.js";

interface Case {
  alertname: string;
  exp_alerts: unknown[];
}

const cases = list("rules/tests", ".yaml").flatMap((file) =>
  (parse(read(`rules/tests/${file}`)) as { tests: { alert_rule_test?: Case[] }[] }).tests.flatMap(
    ({ alert_rule_test }) => alert_rule_test ?? [],
  ),
);

const SECTIONS = ["## Meaning", "## Impact", "## How to find out", "## How to mend"];

for (const { alert, labels, annotations } of alerts) {
  test(`${alert} is named, weighed and explained as others expect it`, () => {
    assert.match(alert, /^(Sidelight|RustService)([A-Z][a-z]+)+$/);
    assert.ok(["critical", "warning", "info"].includes(labels.severity));
    assert.match(annotations.summary, /^[A-Z].+\.$/s);
    assert.match(annotations.description, /^.*[{]{2}.+[}]{2}.*\.$/s);
    assert.equal(annotations.runbook_url, `${RUNBOOKS}/${alert}`);
  });

  test(`${alert} has a test in which it fires, and one in which it does not`, () => {
    const own = cases.filter(({ alertname }) => alertname === alert);
    assert.ok(own.some(({ exp_alerts }) => exp_alerts.length > 0));
    assert.ok(own.some(({ exp_alerts }) => exp_alerts.length === 0));
  });

  test(`${alert} has a runbook with all of its parts`, () => {
    const runbook = read(`runbooks/${alert}.md`);
    assert.ok(runbook.startsWith(`# ${alert}\n`));
    const [, ...parts] = runbook.split(/^(?=## )/m);
    assert.deepEqual(
      parts.map((part) => part.split("\n")[0]),
      SECTIONS,
    );
    for (const part of parts) assert.ok(part.split("\n").slice(1).join("").length > 30, `too little: ${part}`);
  });
}

test("each alert has a name of its own", () => {
  assert.equal(new Set(alerts.map(({ alert }) => alert)).size, alerts.length);
});

test("no runbook is left of an alert that is gone", () => {
  const names = new Set(alerts.map(({ alert }) => `${alert}.md`));
  assert.deepEqual(
    list("runbooks", ".md").filter((file) => !names.has(file)),
    [],
  );
});

test("what runbooks tell to type is there: commands, dashboards and other runbooks", () => {
  const readme = read("../README.md");
  for (const file of list("runbooks", ".md")) {
    const runbook = read(`runbooks/${file}`);
    for (const [, command] of runbook.matchAll(/(?<!-n )\bsidelight ([a-z][a-z-]+)/g)) {
      assert.match(readme, new RegExp(`\`sidelight ${command}\\b`), `${file}: sidelight ${command}`);
    }
    for (const [, command] of runbook.matchAll(/\bsidelight-injector ([a-z]+)/g)) {
      assert.match(String(command), /^(serve|inject|uninject|check)$/, file);
    }
    for (const [, target] of runbook.matchAll(/\]\(([A-Za-z]+\.md)\)/g)) {
      assert.ok(list("runbooks", ".md").includes(String(target)), `${file} links to ${target}`);
    }
    for (const [, title] of runbook.matchAll(/\*Sidelight \/ ([^*]+)\*/g)) {
      assert.match(String(title), /^(Rust services|Logs|Agent|Injector)$/, file);
    }
  }
});
