import { Counter, collectDefaultMetrics, Gauge, Histogram, type MetricValue, Registry } from 'prom-client';
import { toDandelionError } from '../errors.ts';
import type { SearchCounts } from '../stores/search-writer.ts';
import type { GaugeSource } from './types.ts';

/** What starts an invocation: OpenTelemetry's `faas.trigger`. */
export type Trigger = 'http' | 'pubsub';

/** The one metric set of every function, in Prometheus text. */
export interface FunctionMetrics {
  /** `seconds` is the handler's own time. */
  invoked(trigger: Trigger, seconds: number): void;
  /** Counts an error under its code, once, however often it passes by. */
  failed(error: unknown): void;
  /** Counts a notice that left: taken by the sink, refused by it, or lost before. */
  noticed(outcome: 'sent' | 'refused' | 'dropped'): void;
  initialised(seconds: number): void;
  coldStart(): void;
  /** Adds a figure of the function's own. */
  gauge(source: GaugeSource): void;
  text(): Promise<{ contentType: string; body: string }>;
  /** Every sample by name and labels, for those who keep figures without scraping. */
  samples(): Promise<Sample[]>;
}

/** One figure of the metric set, as at this moment. */
export interface Sample {
  name: string;
  labels: Readonly<Record<string, string | number>>;
  value: number;
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600];

/**
 * @param inFlight asked at each scrape
 * @param searchCounts what became of documents for Elasticsearch; absent where none is configured
 */
export function createMetrics(
  functionName: string,
  inFlight: () => number,
  searchCounts?: () => Readonly<SearchCounts>,
): FunctionMetrics {
  const registry = new Registry();
  registry.setDefaultLabels({ function: functionName });
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const invocations = new Counter({
    name: 'faas_invocations_total',
    help: 'Invocations of the handler',
    labelNames: ['trigger'],
    registers,
  });
  const durations = new Histogram({
    name: 'faas_invocation_duration_seconds',
    help: "The handler's own time",
    buckets: SECONDS,
    registers,
  });
  const errors = new Counter({
    name: 'faas_errors_total',
    help: 'Requests and runs answered with a problem, by its code',
    labelNames: ['code'],
    registers,
  });
  const notices = new Counter({
    name: 'faas_notices_total',
    help: 'Notices taken or refused by the sink, and those dropped before',
    labelNames: ['outcome'],
    registers,
  });
  // A counter that appears with its first loss hides that loss from rates.
  for (const outcome of ['sent', 'refused', 'dropped']) notices.inc({ outcome }, 0);
  const coldStarts = new Counter({
    name: 'faas_coldstarts_total',
    help: 'First invocations of a process',
    registers,
  });
  const initDurations = new Histogram({
    name: 'faas_init_duration_seconds',
    help: 'From listening to ready',
    buckets: SECONDS,
    registers,
  });
  new Gauge({
    name: 'faas_inflight',
    help: 'Requests and runs under way',
    registers,
    collect() {
      this.set(inFlight());
    },
  });
  if (searchCounts !== undefined) countSearch(registers, searchCounts);
  const counted = new WeakSet<object>();

  return {
    invoked(trigger, seconds) {
      invocations.inc({ trigger });
      durations.observe(seconds);
    },
    failed(thrown) {
      const error = toDandelionError(thrown);
      if (counted.has(error)) return;
      counted.add(error);
      errors.inc({ code: error.code });
    },
    noticed: (outcome) => notices.inc({ outcome }),
    initialised: (seconds) => initDurations.observe(seconds),
    coldStart: () => coldStarts.inc(),
    gauge: (source) => addGauge(registers, source),
    text: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
    async samples() {
      const metrics = await registry.getMetricsAsJSON();
      return metrics.flatMap(({ name, values }) =>
        // A histogram's samples have names of their own.
        values.map((sample: MetricValue<string> & { metricName?: string }) => ({
          name: sample.metricName ?? name,
          labels: sample.labels as Sample['labels'],
          value: sample.value,
        })),
      );
    },
  };
}

function addGauge(registers: Registry[], { name, help, labelNames, read }: GaugeSource): void {
  new Gauge({
    ...{ name, help, labelNames, registers },
    async collect() {
      this.reset();
      // A database that is away must not take the other figures with it.
      const samples = await read().catch(() => []);
      for (const { labels, value } of samples) this.set(labels, value);
    },
  });
}

function countSearch(registers: Registry[], counts: () => Readonly<SearchCounts>): void {
  new Counter({
    name: 'faas_search_documents_total',
    help: 'Log lines and figures that Elasticsearch stored, that it refused, and those dropped before',
    labelNames: ['outcome'],
    registers,
    collect() {
      this.reset();
      for (const [outcome, documents] of Object.entries(counts())) this.inc({ outcome }, documents);
    },
  });
}
