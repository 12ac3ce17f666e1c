// What rules are made of: groups of recording rules and alerts, in the form that Prometheus reads.

import { stringify } from "yaml";

/** Where runbooks are served. Nothing is served there yet: render with RUNBOOKS set to where your team can read them. */
export const RUNBOOKS = process.env.RUNBOOKS ?? "https://sidelight.dev/runbooks";

export type Severity = "critical" | "warning" | "info";

export interface Recording {
  record: string;
  expr: string;
  labels?: Record<string, string>;
}

export interface Alert {
  alert: string;
  expr: string;
  for?: string;
  labels: { severity: Severity };
  annotations: { summary: string; description: string; runbook_url: string };
}

export interface Group {
  name: string;
  interval?: string;
  rules: (Recording | Alert)[];
}

/** A rule file, by its name without extension. */
export interface RuleFile {
  name: string;
  about: string;
  groups: Group[];
}

export function record(record: string, expr: string, labels?: Record<string, string>): Recording {
  return { record, expr: tidy(expr), ...(labels && { labels }) };
}

export function alert(
  severity: Severity,
  name: string,
  { expr, wait, summary, description }: { expr: string; wait?: string; summary: string; description: string },
): Alert {
  return {
    alert: name,
    expr: tidy(expr),
    ...(wait && { for: wait }),
    labels: { severity },
    annotations: { summary, description, runbook_url: `${RUNBOOKS}/${name}` },
  };
}

/** Takes off the indentation that the source has. */
export function tidy(expr: string): string {
  const lines = expr.replace(/^\n+|\s+$/g, "").split("\n");
  const indents = lines.filter((line) => line.trim() !== "").map((line) => line.search(/\S/));
  const indent = Math.min(...indents);
  return lines.map((line) => line.slice(indent).trimEnd()).join("\n");
}

export function render(file: RuleFile): string {
  const about = [...file.about.split("\n"), `Made from src/rules/${file.name}.ts: change that, and render.`];
  return about.map((line) => `# ${line}\n`).join("") + stringify({ groups: file.groups }, { lineWidth: 0 });
}
