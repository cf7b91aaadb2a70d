import type { Sample } from './metrics.ts';

/** What one process of a function did since the document before, and how it is now: `dandelion.*` of the document. */
export interface MetricsFigures {
  interval_ms: number;
  invocations: number;
  errors: number;
  /** By code of the error catalogue. */
  errors_by_code: Record<string, number>;
  coldstarts: number;
  notices: Record<string, number>;
  search: Record<string, number>;
  /** The handler's own time; `le` counts invocations up to a bound, by `ms_{bound}`, as Prometheus buckets do. */
  duration: { count: number; sum_ms: number; le: Record<string, number> };
  /** From listening to ready; 0 until then. */
  init_ms: number;
  inflight: number;
  memory_bytes: number;
  cpu_ms: number;
  event_loop_p99_ms: number;
}

const DURATION = 'faas_invocation_duration_seconds';

/** Differences of counters, so that documents of any processes and times can be added up; gauges as they are. */
export function figuresBetween(
  before: readonly Sample[],
  now: readonly Sample[],
  intervalMs: number,
): MetricsFigures {
  const earlier = new Map(before.map((sample) => [keyOf(sample), sample.value]));
  const since = (name: string) =>
    now
      .filter((sample) => sample.name === name)
      .map((sample) => ({ ...sample, value: sample.value - (earlier.get(keyOf(sample)) ?? 0) }));
  const total = (name: string) => since(name).reduce((sum, { value }) => sum + value, 0);
  const by = (name: string, label: string) =>
    Object.fromEntries(since(name).map(({ labels, value }) => [String(labels[label]), value]));
  const current = (name: string) => now.find((sample) => sample.name === name)?.value ?? 0;
  return {
    interval_ms: Math.round(intervalMs),
    invocations: total('faas_invocations_total'),
    errors: total('faas_errors_total'),
    errors_by_code: by('faas_errors_total', 'code'),
    coldstarts: total('faas_coldstarts_total'),
    notices: by('faas_notices_total', 'outcome'),
    search: by('faas_search_documents_total', 'outcome'),
    duration: {
      count: total(`${DURATION}_count`),
      sum_ms: total(`${DURATION}_sum`) * 1000,
      le: Object.fromEntries(
        since(`${DURATION}_bucket`).map(({ labels, value }) => [boundName(labels.le), value]),
      ),
    },
    init_ms: current('faas_init_duration_seconds_sum') * 1000,
    inflight: current('faas_inflight'),
    memory_bytes: current('process_resident_memory_bytes'),
    cpu_ms: total('process_cpu_seconds_total') * 1000,
    event_loop_p99_ms: current('nodejs_eventloop_lag_p99_seconds') * 1000,
  };
}

/** True when something was asked of the function since. */
export function hasActivity(figures: MetricsFigures): boolean {
  return figures.invocations > 0 || figures.errors > 0 || figures.inflight > 0;
}

function keyOf({ name, labels }: Sample): string {
  return `${name} ${JSON.stringify(labels)}`;
}

function boundName(seconds: unknown): string {
  return seconds === '+Inf' ? 'ms_inf' : `ms_${Math.round(Number(seconds) * 1000)}`;
}
