// The HTTP API of Prometheus, as far as Grafana asks it.

export interface Series {
  metric: Record<string, string>;
  /** Times in seconds, and values. One for an instant query. */
  points: [time: number, value: number][];
}

export interface Window {
  start: number;
  end: number;
  step: number;
}

type Raw = [time: number, value: string];

export class Prometheus {
  constructor(private readonly url: string) {}

  /** The values of a label in series that a selector means. */
  async labelValues(label: string, selector: string, { start, end }: Window): Promise<string[]> {
    const data = await this.ask(`label/${label}/values`, {
      "match[]": selector,
      start: String(start),
      end: String(end),
    });
    return data as string[];
  }

  async instant(query: string, { end }: Window): Promise<Series[]> {
    const data = (await this.ask("query", { query, time: String(end) })) as {
      resultType: string;
      result: { metric: Record<string, string>; value: Raw }[] | Raw;
    };
    if (data.resultType === "scalar") return [{ metric: {}, points: [point(data.result as Raw)] }];
    const result = data.result as { metric: Record<string, string>; value: Raw }[];
    return result.map(({ metric, value }) => ({ metric, points: [point(value)] }));
  }

  async range(query: string, { start, end, step }: Window): Promise<Series[]> {
    const data = (await this.ask("query_range", {
      query,
      start: String(start),
      end: String(end),
      step: String(step),
    })) as { result: { metric: Record<string, string>; values: Raw[] }[] };
    return data.result.map(({ metric, values }) => ({ metric, points: values.map(point) }));
  }

  private async ask(path: string, parameters: Record<string, string>): Promise<unknown> {
    const response = await fetch(`${this.url}/api/v1/${path}?${new URLSearchParams(parameters).toString()}`);
    const answer = (await response.json()) as { status: string; error?: string; data: unknown };
    if (answer.status !== "success") throw new Error(answer.error ?? `${response.status} ${response.statusText}`);
    return answer.data;
  }
}

function point([time, value]: Raw): [number, number] {
  return [time, value === "+Inf" ? Infinity : value === "-Inf" ? -Infinity : Number(value)];
}
