import assert from "node:assert/strict";
import { test } from "node:test";

import { Panel, shown } from "../src/lint.js";
import { dashboards } from "./model.js";

const overlaps = ({ gridPos: a }: Panel, { gridPos: b }: Panel) =>
  a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

for (const { file, model } of dashboards) {
  test(`${file} has a place for each panel, and none for two`, () => {
    for (const [index, panel] of model.panels.entries()) {
      assert.ok(panel.gridPos.x + panel.gridPos.w <= 24, `${panel.title} is beyond the edge`);
      const other = model.panels.slice(index + 1).find((other) => overlaps(panel, other));
      assert.equal(other, undefined, `${panel.title} lies over ${other?.title}`);
    }
    assert.equal(new Set(model.panels.map(({ id }) => id)).size, model.panels.length);
  });

  test(`${file} begins with numbers that answer its question`, () => {
    const [row, ...panels] = model.panels;
    const first = panels.slice(
      0,
      panels.findIndex(({ type }) => type === "row"),
    );
    assert.match(row?.title ?? "", /\?$/);
    assert.ok(first.length >= 4 && first.every(({ type }) => type === "stat"));
    assert.equal(
      first.reduce((width, { gridPos }) => width + gridPos.w, 0),
      24,
    );
  });

  test(`${file} says when a panel may be empty in the one way that the query runner knows`, () => {
    for (const { title, description = "" } of shown(model)) {
      if (/empty|no data/i.test(description)) assert.match(description, /\. Empty when [^.]+.*\.$/s, title);
    }
  });

  test(`${file} leads to the others, and takes along what means the same there`, () => {
    assert.ok(model.tags?.includes("sidelight"));
    const others = dashboards.map(({ model }) => model).filter(({ uid }) => uid !== model.uid);
    const services = ["sidelight-rust-services", "sidelight-logs"];
    for (const { uid } of others) {
      const link = model.links?.find(({ url }) => url?.split("?")[0] === `/d/${uid}`);
      assert.ok(link?.keepTime, `nothing leads to ${uid}`);
      const areBoth = services.includes(uid) && services.includes(model.uid);
      assert.equal(link.includeVars, areBoth, uid);
      if (!areBoth) assert.equal(link.url, `/d/${uid}?\${datasource:queryparam}&\${cluster:queryparam}`);
    }
    assert.equal(model.links?.length, others.length);
  });

  test(`${file} uses every variable that it has, and has every one that it uses`, () => {
    const text = JSON.stringify(shown(model)) + JSON.stringify(model.templating.list.map(({ query }) => query));
    const names = model.templating.list.map(({ name }) => name);
    for (const name of names) assert.match(text, new RegExp(`\\$(${name}\\b|\\{${name}\\})`), name);
    for (const [, a, b] of text.matchAll(/=~\\"\$(\w+)|\$\{(\w+)\}/g)) assert.ok(names.includes(a ?? b ?? ""), a ?? b);
    assert.ok(["cluster", "namespace", "workload", "pod", "job"].every((name) => names.includes(name)));
  });

  test(`${file} names what its graphs and bars show`, () => {
    for (const { title, type, targets = [] } of shown(model)) {
      if (type !== "timeseries" && type !== "bargauge") continue;
      for (const { legendFormat } of targets) assert.ok(legendFormat, `${title} has no legend`);
    }
  });
}

test("a workload that stands in the job is what comes behind the namespace", () => {
  const workloads = dashboards.flatMap(({ model }) => model.templating.list.filter(({ name }) => name === "workload"));
  const ofJob = workloads.flatMap(({ regex }) => regex ?? []).map((regex) => new RegExp(regex.slice(1, -1)));
  assert.equal(ofJob.length, 2);
  for (const regex of ofJob) {
    for (const job of ["shop/cart", "cart"]) assert.equal(regex.exec(job)?.[1], "cart");
  }
});

test("no two dashboards have one uid or one title", () => {
  for (const of of ["uid", "title"] as const) {
    assert.equal(new Set(dashboards.map(({ model }) => model[of])).size, dashboards.length);
  }
});
