// Values as Grafana writes them.

const SCALES: Record<string, [step: number, prefixes: string[], suffix: string]> = {
  bytes: [1024, ["B", "KiB", "MiB", "GiB", "TiB"], ""],
  Bps: [1000, ["B/s", "kB/s", "MB/s", "GB/s"], ""],
  short: [1000, ["", "K", "Mil", "Bil"], ""],
  reqps: [1000, ["", "K", "M"], " req/s"],
  ops: [1000, ["", "K", "M"], " ops/s"],
  cps: [1000, ["", "K", "M"], " c/s"],
};

const DURATIONS: [number, string][] = [
  [86400, "days"],
  [3600, "hours"],
  [60, "mins"],
  [1, "s"],
  [1e-3, "ms"],
  [1e-6, "µs"],
];

/** With as many decimals as are wanted, else with three digits that count. */
export function format(value: number, unit = "none", decimals?: number): string {
  const short = (value: number) =>
    String(Number(decimals === undefined ? value.toPrecision(3) : value.toFixed(decimals)));
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  if (unit === "bool_yes_no") return value === 0 ? "No" : "Yes";
  if (unit === "percentunit") return `${short(value * 100)}%`;
  if (unit === "s") {
    const [size, name] = DURATIONS.find(([size]) => Math.abs(value) >= size) ?? [1, "s"];
    return `${short(value / size)} ${name}`;
  }
  const scale = SCALES[unit];
  if (!scale) return short(value);
  const [step, prefixes, suffix] = scale;
  const index = Math.min(prefixes.length - 1, Math.max(0, Math.floor(Math.log(Math.abs(value) || 1) / Math.log(step))));
  return `${short(value / step ** index)} ${prefixes[index]}${suffix}`.replace("  ", " ").trim();
}
