// The rendered files, as others will read them.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";

import type { Model } from "../src/lint.js";
import { ROOT } from "../src/render.js";
import type { Alert, Group, Recording } from "../src/rules.js";

export const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
export const list = (path: string, end: string) => readdirSync(join(ROOT, path)).filter((name) => name.endsWith(end));

export const dashboards = list("grafana", ".json").map((file) => ({
  file,
  model: JSON.parse(read(`grafana/${file}`)) as Model,
}));

const groups = list("rules", ".yaml").flatMap((file) =>
  (parse(read(`rules/${file}`)) as { groups: Group[] }).groups.map((group) => ({ ...group, file })),
);

export const rules = groups.flatMap((group) => group.rules);
export const alerts = rules.filter((rule): rule is Alert => "alert" in rule);
export const recordings = rules.filter((rule): rule is Recording => "record" in rule);
