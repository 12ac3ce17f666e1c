// How Rust services name what they count, and how it gets one name.

import { tidy } from "../rules.js";

/** What a series keeps of where it is from. */
export const TARGET = "cluster, namespace, pod, container, job, instance";
/** What tells targets apart, whoever scrapes them: two scrapers of one pod differ in `job`. */
export const ENDPOINT = "cluster, namespace, pod, instance";
/** A container, for what Kubernetes says of it. */
export const CONTAINER = "cluster, namespace, pod, container";

/** Labels, and what dialects call them. */
const LABELS = {
  method: ["method", "http_request_method", "http_method", "grpc_method"],
  route: ["route", "http_route", "endpoint", "path", "handler", "uri", "grpc_service"],
  code: ["code", "http_response_status_code", "http_status_code", "status", "status_code", "grpc_code"],
};

/** Gives labels of a vector their common names. Of several with one meaning the first counts. */
export function named(vector: string, wanted: (keyof typeof LABELS)[]): string {
  return wanted.reduce((vector, to) => {
    const names = LABELS[to].map((name) => `"${name}"`).join(", ");
    const joined = `label_join(\n${indent(vector)},\n  "${to}", ";", ${names}\n)`;
    return `label_replace(\n${indent(joined)},\n  "${to}", "$1", "${to}", ";*([^;]*).*"\n)`;
  }, vector);
}

/** `workload`: the job without the namespace that the agent, and Prometheus's operator, put before it. */
export function withWorkload(vector: string): string {
  return `label_replace(\n${indent(vector)},\n  "workload", "$1", "job", "(?:.*/)?(.+)"\n)`;
}

export function withLabel(vector: string, label: string, value: string): string {
  return `label_replace(\n${indent(vector)},\n  "${label}", "${value}", "", ""\n)`;
}

/** Of each target the first of these vectors that has something of it. */
export function first(vectors: string[], key = ENDPOINT): string {
  return vectors.map(tidy).join(`\nor on (${key})\n`);
}

/** Not of targets that say that they are written in another language. */
export function rustOnly(vector: string): string {
  return `(\n${indent(vector)}\n)\nunless on (${ENDPOINT}) rust:other_language:info`;
}

export function indent(text: string): string {
  return tidy(text).replace(/^/gm, "  ");
}
