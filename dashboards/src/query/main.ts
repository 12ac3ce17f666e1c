// Asks a Prometheus every query of every dashboard, as Grafana would.
//
//     npm run query -- --prometheus URL [--range SECONDS] [--scrape-interval SECONDS] [--dashboard NAME]...
//                      [--json] [--pictures DIRECTORY]
//
// Exit code 1 if a query fails, or if a panel is empty that does not name the condition under which it may be.
// `--json` prints the answers for programs; `--pictures` draws each dashboard, with Debian's chromium if it is there.

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import type { Model } from "../lint.js";
import { ROOT } from "../render.js";
import { Answer, Settings, ask } from "./grafana.js";
import { page, size } from "./picture.js";
import { Prometheus } from "./prometheus.js";

const { values: options } = parseArgs({
  options: {
    prometheus: { type: "string" },
    range: { type: "string", default: "900" },
    "scrape-interval": { type: "string", default: "15" },
    dashboard: { type: "string", multiple: true },
    json: { type: "boolean", default: false },
    pictures: { type: "string" },
  },
});

interface Outcome {
  dashboard: string;
  error?: string;
  answers: Answer[];
}

function settings(): Settings {
  const scrapeInterval = Number(options["scrape-interval"]);
  const range = Number(options.range);
  const end = Math.floor(Date.now() / 1000);
  return {
    scrapeInterval,
    window: { start: end - range, end, step: Math.max(scrapeInterval, Math.ceil(range / 120)) },
  };
}

async function outcome(name: string, prometheus: Prometheus): Promise<Outcome> {
  const model = JSON.parse(readFileSync(join(ROOT, "grafana", `${name}.json`), "utf8")) as Model;
  try {
    const answers = await ask(model, prometheus, settings());
    if (options.pictures) draw(name, model, answers, options.pictures);
    return { dashboard: name, answers };
  } catch (error) {
    return { dashboard: name, answers: [], error: String(error) };
  }
}

function draw(name: string, model: Model, answers: Answer[], directory: string): void {
  mkdirSync(directory, { recursive: true });
  const html = resolve(directory, `${name}.html`);
  writeFileSync(html, page(model, answers));
  const { width, height } = size(model);
  const { error, status } = spawnSync(
    "chromium",
    [
      "--headless",
      "--no-sandbox",
      "--hide-scrollbars",
      `--window-size=${width},${height}`,
      `--screenshot=${html.replace(/html$/, "png")}`,
      pathToFileURL(html).href,
    ],
    { stdio: "ignore" },
  );
  if (error || status) console.error(`${html} is there, but no picture of it: chromium ${error ? "is not" : "failed"}`);
}

function report({ dashboard, error, answers }: Outcome): void {
  const count = (state: Answer["state"]) => answers.filter((answer) => answer.state === state).length;
  console.log(`${dashboard}: ${count("full")} of ${answers.length} panels have data, ${count("excused")} may be empty`);
  if (error) console.log(`  FAILED  ${error}`);
  for (const { panel, state, condition, results } of answers) {
    if (state === "full") continue;
    console.log(
      `  ${state === "excused" ? "no data" : state.toUpperCase()}  ${panel.title}${condition ? `: when ${condition}` : ""}`,
    );
    if (state === "excused") continue;
    for (const { query, error } of results)
      console.log(`           ${error ?? "no value"}: ${query.replace(/\s+/g, " ")}`);
  }
}

async function main(): Promise<void> {
  if (!options.prometheus) {
    console.error("usage: npm run query -- --prometheus URL");
    process.exitCode = 64;
    return;
  }
  const prometheus = new Prometheus(options.prometheus.replace(/\/$/, ""));
  const names = readdirSync(join(ROOT, "grafana"))
    .filter((file) => file.endsWith(".json"))
    .map((file) => file.slice(0, -5));
  const outcomes: Outcome[] = [];
  for (const name of names) {
    if (!options.dashboard || options.dashboard.includes(name)) outcomes.push(await outcome(name, prometheus));
  }
  if (options.json) {
    const answers = outcomes.flatMap(({ dashboard, error, answers }) => [
      ...(error ? [{ dashboard, state: "failed", error }] : []),
      ...answers.map(({ panel, state, condition, results }) => ({
        dashboard,
        panel: panel.title,
        state,
        condition,
        queries: results.map(({ query, error, series }) => ({ query, error, series: series.length })),
      })),
    ]);
    console.log(JSON.stringify(answers, null, 2));
  } else {
    outcomes.forEach(report);
  }
  const isBad = ({ error, answers }: Outcome) =>
    error || answers.some(({ state }) => state === "empty" || state === "failed");
  process.exitCode = outcomes.length === 0 || outcomes.some(isBad) ? 1 : 0;
}

await main();
