import assert from "node:assert/strict";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import type { Model, Panel } from "../src/lint.js";
import { ask, expand, variables } from "../src/query/grafana.js";
import { page } from "../src/query/picture.js";
import { Prometheus } from "../src/query/prometheus.js";
import { format } from "../src/query/units.js";

const SETTINGS = { scrapeInterval: 15, window: { start: 1000, end: 1900, step: 15 } };

/** A Prometheus that knows these answers to queries, and values of labels. */
async function withPrometheus(
  answers: Record<string, unknown>,
  labels: Record<string, string[]>,
  run: (prometheus: Prometheus, asked: URL[]) => Promise<void>,
): Promise<void> {
  const asked: URL[] = [];
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? "", "http://prometheus");
    asked.push(url);
    const label = /label\/(\w+)\/values/.exec(url.pathname)?.[1];
    const data = label ? labels[label] : answers[url.searchParams.get("query") ?? ""];
    response.end(JSON.stringify(data ? { status: "success", data } : { status: "error", error: "unknown" }));
  };
  const server = createServer(answer).listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  try {
    await run(new Prometheus(`http://127.0.0.1:${(server.address() as AddressInfo).port}`), asked);
  } finally {
    server.close();
  }
}

const vector = (...values: string[]) => ({
  resultType: "vector",
  result: values.map((value, index) => ({ metric: { pod: `p${index}` }, value: [1900, value] })),
});

const matrix = (...values: string[]) => ({
  resultType: "matrix",
  result: [{ metric: { pod: "p" }, values: values.map((value, index) => [1000 + index * 15, value]) }],
});

function panel(title: string, exprs: string[], description = "What it shows.", instant = true): Panel {
  return {
    id: 1,
    type: instant ? "stat" : "timeseries",
    title,
    description,
    gridPos: { x: 0, y: 0, w: 8, h: 8 },
    targets: exprs.map((expr, index) => ({ refId: "ABC".charAt(index), expr, instant })),
    fieldConfig: { defaults: { unit: "s" } },
  };
}

function model(panels: Panel[], list: Model["templating"]["list"] = []): Model {
  return { title: "Model", uid: "model", templating: { list }, panels };
}

const query = (name: string, selector: string, allValue: string) => ({
  name,
  type: "query",
  query: `label_values(${selector}, ${name})`,
  allValue,
});

test("a panel has data when each of its queries has a value that is a number", async () => {
  const answers = { full: vector("1"), none: vector(), nan: vector("NaN"), infinite: vector("+Inf") };
  const excused = "What it shows. Empty when nothing happens.";
  const cases: [string[], string, string][] = [
    [["full"], "", "full"],
    [["full", "infinite"], "", "full"],
    [["none"], "", "empty"],
    [["nan"], "", "empty"],
    [["full", "none"], "", "empty"],
    [["none"], excused, "excused"],
    [["full"], excused, "full"],
    [["wrong"], excused, "failed"],
    [[], "", "empty"],
  ];
  await withPrometheus(answers, {}, async (prometheus) => {
    for (const [exprs, description, state] of cases) {
      const [answer] = await ask(model([panel("Panel", exprs, description)]), prometheus, SETTINGS);
      assert.equal(answer?.state, state, exprs.join());
    }
  });
});

test("graphs are asked over the range, numbers at its end", async () => {
  const answers = { graph: matrix("1"), number: vector("1") };
  await withPrometheus(answers, {}, async (prometheus, asked) => {
    await ask(model([panel("Graph", ["graph"], "", false), panel("Number", ["number"])]), prometheus, SETTINGS);
    assert.deepEqual(
      asked.map(({ pathname }) => pathname),
      ["/api/v1/query_range", "/api/v1/query"],
    );
    assert.equal(asked[0]?.searchParams.get("step"), "15");
    assert.equal(asked[1]?.searchParams.get("time"), "1900");
  });
});

test("variables have the values that there are, as far as those before them leave", async () => {
  const templates = [query("namespace", "up", ".*"), query("job", 'up{namespace=~"$namespace"}', ".+")];
  const labels = { namespace: ["shop", "a.b"], job: ["shop/web"] };
  await withPrometheus({}, labels, async (prometheus, asked) => {
    const values = await variables(model([], templates), prometheus, SETTINGS);
    assert.equal(values.get("namespace"), "(shop|a\\\\.b)");
    assert.equal(asked[1]?.searchParams.get("match[]"), 'up{namespace=~"(shop|a\\\\.b)"}');
    assert.equal(expand('{job=~"$job"}[$__rate_interval]', values), '{job=~"(shop/web)"}[60s]');
  });
});

test("a label that nobody has means all; a job that nobody has is a failure", async () => {
  await withPrometheus({}, { cluster: [], job: [] }, async (prometheus) => {
    const cluster = await variables(model([], [query("cluster", "up", ".*")]), prometheus, SETTINGS);
    assert.equal(cluster.get("cluster"), ".*");
    await assert.rejects(variables(model([], [query("job", "up", ".+")]), prometheus, SETTINGS), /\$job has no value/);
  });
});

test("a picture has each panel with its title, and its value in its unit", async () => {
  const answers = { graph: matrix("1", "2"), number: vector("0.25") };
  await withPrometheus(answers, {}, async (prometheus) => {
    const drawn = model([panel("A < B", ["graph"], "", false), panel("Number", ["number"])]);
    const picture = page(drawn, await ask(drawn, prometheus, SETTINGS));
    for (const text of [">A &lt; B<", ">Number<", ">250 ms<", "<polyline "]) assert.ok(picture.includes(text), text);
  });
});

test("values are written as Grafana writes them", () => {
  const cases: [number, string, string][] = [
    [0.0123, "s", "12.3 ms"],
    [90, "s", "1.5 mins"],
    [0.5, "percentunit", "50%"],
    [1536, "bytes", "1.5 KiB"],
    [2_000_000, "Bps", "2 MB/s"],
    [0, "reqps", "0 req/s"],
    [1, "bool_yes_no", "Yes"],
    [Infinity, "s", "+Inf"],
  ];
  for (const [value, unit, text] of cases) assert.equal(format(value, unit), text);
});
