import assert from "node:assert/strict";
import { test } from "node:test";

import { drift, files } from "../src/render.js";
import { list } from "./model.js";

test("what is rendered is what the source says: else npm run render", () => {
  assert.deepEqual(drift(), []);
});

test("nothing is left of what the source no longer has", () => {
  const rendered = [
    ...list("grafana", ".json").map((name) => `grafana/${name}`),
    ...list("rules", ".yaml").map((name) => `rules/${name}`),
  ];
  assert.deepEqual(rendered.sort(), [...files().keys()].sort());
});
