// PromQL as Prometheus's own grammar has it.

import type { SyntaxNode } from "@lezer/common";
import { parser } from "@prometheus-io/lezer-promql";

export interface Matcher {
  label: string;
  op: string;
  value: string;
}

/** A selector of series in an expression. */
export interface Selector {
  /** Its name, or nothing where only matchers stand. */
  name: string;
  matchers: Matcher[];
  /** The text of its range, if it has one. */
  range?: string;
  /** The function that it is handed to. */
  function?: string;
}

/** What Grafana's variables stand for, where an expression needs a value to be parsed. */
const GLOBALS: Record<string, string> = {
  __rate_interval: "5m",
  __interval: "1m",
  __range: "1h",
  __range_s: "3600",
  __range_ms: "3600000",
  __interval_ms: "60000",
};

/** Puts values in the place of variables. Text in quotes stays as it is: it is valid with them. */
export function expand(expr: string, globals = GLOBALS): string {
  const value = (_: string, a?: string, b?: string) => globals[a ?? b ?? ""] ?? a ?? b ?? "";
  const parts = expr.split('"');
  return parts.map((part, index) => (index % 2 ? part : part.replace(/\$(\w+)|\$\{(\w+)\}/g, value))).join('"');
}

/** Where the first mistake of an expression is; undefined if it has none. */
export function mistake(expr: string): string | undefined {
  if (expr.trim() === "") return "it is empty";
  let found: string | undefined;
  parser.parse(expr).iterate({
    enter: (node) => {
      if (node.type.isError) found ??= `near ${JSON.stringify(expr.slice(node.from, node.to + 20))}`;
    },
  });
  return found;
}

export function selectors(expr: string): Selector[] {
  const found: Selector[] = [];
  const text = (node: SyntaxNode) => expr.slice(node.from, node.to);
  parser.parse(expr).iterate({
    enter: ({ name, node }) => {
      if (name === "VectorSelector") found.push(selector(node, text));
    },
  });
  return found;
}

function selector(node: SyntaxNode, text: (node: SyntaxNode) => string): Selector {
  const identifier = node.getChild("Identifier");
  const list = node.getChild("LabelMatchers");
  const matchers = (list ? list.getChildren("UnquotedLabelMatcher") : []).map((matcher) => {
    const [label, op, value] = ["LabelName", "MatchOp", "StringLiteral"].map((name) => matcher.getChild(name));
    if (!label || !op || !value) throw new Error(`a matcher without label, operator or value: ${text(matcher)}`);
    return { label: text(label), op: text(op), value: text(value).slice(1, -1) };
  });
  const ranged = node.parent?.name === "MatrixSelector" ? node.parent : undefined;
  const range = ranged?.getChild("DurationExpr");
  return {
    name: identifier ? text(identifier) : "",
    matchers,
    ...(range && { range: text(range) }),
    ...called(ranged ?? node, text),
  };
}

function called(argument: SyntaxNode, text: (node: SyntaxNode) => string): { function?: string } {
  const call = argument.parent?.name === "FunctionCallBody" ? argument.parent.parent : null;
  const name = call?.getChild("FunctionIdentifier");
  return name ? { function: text(name) } : {};
}

/** Names of metrics that an expression may mean: `__name__=~"a|(b_)?c"` means each of its alternatives. */
export function names(expr: string): string[] {
  return selectors(expr).flatMap(({ name, matchers }) => {
    const pattern = matchers.find(({ label, op }) => label === "__name__" && (op === "=" || op === "=~"));
    return name ? [name] : pattern ? alternatives(pattern.value) : [];
  });
}

/** A pattern's alternatives at its top level. */
function alternatives(pattern: string): string[] {
  const found = [""];
  let depth = 0;
  for (const char of pattern) {
    if (char === "(") depth++;
    if (char === ")") depth--;
    if (char === "|" && depth === 0) found.push("");
    else found[found.length - 1] += char;
  }
  return found;
}
