// A dashboard with what Prometheus has answered, as one picture: panels in the order, size and units of the dashboard.

import type { Model, Panel } from "../lint.js";
import type { Answer } from "./grafana.js";
import type { Series } from "./prometheus.js";
import { format } from "./units.js";

const COLUMN = 66;
const ROW = 36;
const GAP = 4;
const COLOURS = [
  "#73bf69",
  "#5794f2",
  "#f2cc0c",
  "#ff780a",
  "#b877d9",
  "#8ab8ff",
  "#e02f44",
  "#c0d8ff",
  "#fade2a",
  "#a352cc",
];
const LEVELS: Record<string, string> = { green: "#73bf69", orange: "#ff780a", red: "#e02f44" };

/** Where something is drawn. */
interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

export function page(model: Model, answers: Answer[]): string {
  const height = Math.max(...model.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * ROW + 60;
  const drawn = model.panels.map((panel) => {
    const answer = answers.find((answer) => answer.panel === panel);
    return answer ? drawPanel(panel, answer) : text(8, top(panel) + 24, panel.title ?? "", "#ffffff", 16);
  });
  return `<!doctype html><meta charset="utf-8"><title>${escape(model.title)}</title>
<body style="margin:0;background:#111217">
<svg xmlns="http://www.w3.org/2000/svg" width="${24 * COLUMN}" height="${height}" font-family="DejaVu Sans">
${text(8, 32, model.title, "#ffffff", 20)}
${drawn.join("\n")}
</svg>
`;
}

export const size = (model: Model) => ({
  width: 24 * COLUMN,
  height: Math.max(...model.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * ROW + 60,
});

const top = ({ gridPos }: Panel) => gridPos.y * ROW + 48;

function drawPanel(panel: Panel, answer: Answer): string {
  const { x, w, h } = panel.gridPos;
  const box = { x: x * COLUMN + GAP, y: top(panel) + GAP, w: w * COLUMN - 2 * GAP, h: h * ROW - 2 * GAP };
  const frame = `<rect x="${box.x}" y="${box.y}" width="${box.w}" height="${box.h}" fill="#181b1f" stroke="#2a2d33"/>`;
  const title = text(box.x + 8, box.y + 18, panel.title ?? "", "#ccccdc", 13);
  const inner = { x: box.x + 8, y: box.y + 28, w: box.w - 16, h: box.h - 36 };
  return [frame, title, content(panel, answer, inner)].join("");
}

function content(panel: Panel, answer: Answer, box: Box): string {
  const error = answer.results.find(({ error }) => error)?.error;
  if (error) return text(box.x, box.y + 20, error.slice(0, 100), LEVELS.red ?? "", 11);
  const lines = answer.results.flatMap(({ target, series }) =>
    series.map((each) => ({ name: legend(target.legendFormat ?? "", each), series: each })),
  );
  if (lines.length === 0)
    return text(box.x, box.y + box.h / 2, `No data. ${answer.condition ?? ""}`.slice(0, box.w / 7), "#8e8e99", 12);
  if (panel.type === "stat") return stat(panel, lines, box);
  if (panel.type === "table") return table(panel, answer, box);
  if (panel.type === "bargauge") return bars(panel, lines, box);
  return graph(panel, lines, box);
}

interface Line {
  name: string;
  series: Series;
}

const unitOf = (panel: Panel) => panel.fieldConfig?.defaults.unit;
const written = (panel: Panel, value: number) => format(value, unitOf(panel), panel.fieldConfig?.defaults.decimals);
const last = ({ points }: Series) => points.at(-1)?.[1] ?? NaN;

function level(panel: Panel, value: number): string {
  const steps = panel.fieldConfig?.defaults.thresholds?.steps ?? [];
  const step = steps.filter((step) => step.value === null || value >= step.value).at(-1);
  return LEVELS[step?.color ?? "green"] ?? "#73bf69";
}

function stat(panel: Panel, lines: Line[], box: Box): string {
  return lines
    .slice(0, 4)
    .map(({ series }, index) =>
      text(box.x + index * 120, box.y + 52, written(panel, last(series)), level(panel, last(series)), 34),
    )
    .join("");
}

function bars(panel: Panel, lines: Line[], box: Box): string {
  const max = Math.max(...lines.map(({ series }) => last(series)));
  return lines
    .slice(0, 10)
    .map(({ name, series }, index) => {
      const y = box.y + index * 24;
      const width = Math.max(2, ((box.w - 320) * last(series)) / max);
      const bar = `<rect x="${box.x + 230}" y="${y}" width="${width}" height="18" fill="${level(panel, last(series))}"/>`;
      return (
        text(box.x, y + 14, name.slice(0, 32), "#ccccdc", 11) +
        bar +
        text(box.x + 236 + width, y + 14, written(panel, last(series)), "#ccccdc", 11)
      );
    })
    .join("");
}

function graph(panel: Panel, lines: Line[], box: Box): string {
  const plot = { x: box.x + 62, y: box.y, w: box.w - 66, h: box.h - 42 };
  const isStacked = JSON.stringify(panel.fieldConfig).includes('"mode":"normal"');
  const shapes = isStacked ? stacked(lines) : lines.map(({ series }) => series.points);
  const values = shapes
    .flat()
    .map(([, value]) => value)
    .filter(Number.isFinite);
  const times = shapes.flat().map(([time]) => time);
  const thresholds = (panel.fieldConfig?.defaults.thresholds?.steps ?? []).flatMap(({ value }) => value ?? []);
  const max = Math.max(...values, 0) * 1.1 || 1;
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const px = (time: number) => plot.x + (to === from ? plot.w / 2 : ((time - from) / (to - from)) * plot.w);
  const py = (value: number) => plot.y + plot.h - (value / max) * plot.h;
  const parts = [0, 0.5, 1].map((share) => {
    const y = plot.y + plot.h * (1 - share);
    const rule = `<line x1="${plot.x}" x2="${plot.x + plot.w}" y1="${y}" y2="${y}" stroke="#2a2d33"/>`;
    return rule + text(plot.x - 60, y + 4, written(panel, max * share), "#8e8e99", 10);
  });
  for (const value of thresholds.filter((value) => value <= max)) {
    parts.push(
      `<line x1="${plot.x}" x2="${plot.x + plot.w}" y1="${py(value)}" y2="${py(value)}" stroke="#e02f44" stroke-dasharray="6 4"/>`,
    );
  }
  shapes.forEach((points, index) => {
    const path = points
      .filter(([, value]) => Number.isFinite(value))
      .map(([time, value]) => `${px(time).toFixed(1)},${py(value).toFixed(1)}`);
    parts.push(
      `<polyline points="${path.join(" ")}" fill="none" stroke="${COLOURS[index % COLOURS.length]}" stroke-width="1.5"/>`,
    );
  });
  const clock = (time: number) => new Date(time * 1000).toISOString().slice(11, 19);
  parts.push(
    text(plot.x, plot.y + plot.h + 12, clock(from), "#8e8e99", 9),
    text(plot.x + plot.w - 44, plot.y + plot.h + 12, clock(to), "#8e8e99", 9),
  );
  return parts.join("") + legendLine(lines, { ...box, y: plot.y + plot.h + 20, h: 22 });
}

function stacked(lines: Line[]): Series["points"][] {
  const sums = new Map<number, number>();
  return lines.map(({ series }) =>
    series.points.map(([time, value]) => {
      const sum = (sums.get(time) ?? 0) + (Number.isFinite(value) ? value : 0);
      sums.set(time, sum);
      return [time, sum];
    }),
  );
}

function legendLine(lines: Line[], box: Box): string {
  let [x, y] = [box.x, box.y + 8];
  const parts: string[] = [];
  lines.forEach(({ name }, index) => {
    const width = name.length * 6.4 + 22;
    if (x + width > box.x + box.w) [x, y] = [box.x, y + 12];
    if (y > box.y + box.h) return;
    parts.push(
      `<rect x="${x}" y="${y - 5}" width="10" height="3" fill="${COLOURS[index % COLOURS.length]}"/>`,
      text(x + 14, y, name, "#ccccdc", 10),
    );
    x += width;
  });
  return parts.join("");
}

/** As the transformations "merge" and "organize" make it. */
function table(panel: Panel, answer: Answer, box: Box): string {
  const organize = panel.transformations?.find(({ id }) => id === "organize")?.options as
    { renameByName: Record<string, string>; indexByName: Record<string, number> } | undefined;
  const rename = organize?.renameByName ?? {};
  const order = organize?.indexByName ?? {};
  const columns = Object.keys(rename)
    .filter((field) => field !== "Value" || !("Value #A" in rename))
    .sort((a, b) => (order[a] ?? 0) - (order[b] ?? 0));
  const merged = new Map<string, Record<string, string | number>>();
  for (const { target, series } of answer.results) {
    for (const each of series) {
      const key = JSON.stringify(Object.entries(each.metric).sort());
      merged.set(key, { ...merged.get(key), ...each.metric, [`Value #${target.refId}`]: last(each) });
    }
  }
  const override = (field: string, property: string) =>
    panel.fieldConfig?.overrides
      ?.find(({ matcher }) => matcher.options === rename[field])
      ?.properties.find(({ id }) => id === property)?.value;
  const cell = (field: string, value: string | number | undefined) => {
    if (typeof value !== "number") return value ?? "";
    const [unit, decimals] = [override(field, "unit") ?? unitOf(panel), override(field, "decimals")];
    return format(value, unit as string | undefined, decimals as number | undefined);
  };
  const sortBy = (panel as { options?: { sortBy?: { displayName: string }[] } }).options?.sortBy?.[0]?.displayName;
  const sortField = columns.find((field) => rename[field] === sortBy) ?? "";
  const sorted = [...merged.values()].sort((a, b) => Number(b[sortField] ?? 0) - Number(a[sortField] ?? 0) || 0);
  const width = box.w / columns.length;
  const heads = columns.map((field, index) =>
    text(box.x + index * width, box.y + 10, rename[field] ?? "", "#6e9fff", 11),
  );
  const body = sorted
    .slice(0, Math.floor(box.h / 18) - 1)
    .flatMap((row, line) =>
      columns.map((field, index) =>
        text(
          box.x + index * width,
          box.y + 30 + line * 18,
          cell(field, row[field]).slice(0, width / 6.6),
          "#ccccdc",
          11,
        ),
      ),
    );
  return [...heads, ...body].join("");
}

/** A series' name by the format of its query. */
function legend(format: string, { metric }: Series): string {
  if (format === "") return "";
  return format.replace(/\{\{(\w+)\}\}/g, (_, label: string) => metric[label] ?? "").trim();
}

function text(x: number, y: number, content: string, fill: string, size: number): string {
  return `<text x="${x.toFixed(0)}" y="${y.toFixed(0)}" fill="${fill}" font-size="${size}">${escape(content)}</text>`;
}

function escape(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}
