import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { type Environment, readConfig, searchSettings } from '../config.ts';
import { openSearch } from '../stores/search.ts';
import { streamFields, streamName } from '../stores/search-documents.ts';
import { createSearchWriter, type SearchCounts } from '../stores/search-writer.ts';
import type { FunctionMetrics, Sample } from './metrics.ts';
import { figuresBetween, hasActivity } from './metrics-document.ts';

/** A function's log lines and figures on their way to Elasticsearch; nothing of it ever waits or throws. */
export interface Telemetry {
  /** Where log lines go besides standard output; absent when LOGS_TO_ELASTICSEARCH is off. */
  copyLine: ((line: string) => void) | undefined;
  counts(): Readonly<SearchCounts>;
  /** Writes the function's figures every minute in which it worked, and at the end: nobody scrapes one that sleeps. */
  reportMetrics(metrics: FunctionMetrics, revision: string | undefined): void;
  /** Sends what waits, no longer than until the signal aborts. */
  close(signal: AbortSignal): Promise<void>;
}

export interface TelemetryOptions {
  name: string;
  env: Environment;
  instanceId: string;
  /** For trouble with Elasticsearch itself: lines that must not go there, or each would cause the next. */
  log: Logger;
  metricsEveryMs?: number;
}

const METRICS_EVERY_MS = 60_000;

/**
 * Opens the way to Elasticsearch; `undefined` without ELASTICSEARCH_URL.
 *
 * @throws DandelionError `bad-config` when one of its settings is wrong; a server that does not answer is no fault
 */
export function openTelemetry(options: TelemetryOptions): Telemetry | undefined {
  const { name, env, instanceId, log, metricsEveryMs = METRICS_EVERY_MS } = options;
  const settings = readConfig(searchSettings, env);
  const say = (sentence: string) => log.warn({ 'event.action': 'telemetry' }, sentence);
  const search = openSearch(settings, say);
  if (search === undefined) return undefined;
  const writer = createSearchWriter({ search, say });
  const { namespace } = search;
  const startedAt = new Date().toISOString();
  // An id of this process and no other, so that a repeat of a request stores nothing twice.
  const idPrefix = randomUUID();
  let sent = 0;
  const streams = {
    logs: streamName('logs', name, namespace),
    metrics: streamName('metrics', name, namespace),
  };
  const offer = (type: 'logs' | 'metrics', json: string) => {
    sent += 1;
    const id = `${idPrefix}-${sent}`;
    writer.offer({ stream: streams[type], id, json });
  };
  const logFields = `{"data_stream":${JSON.stringify(streamFields('logs', name, namespace))},`;

  let timer: NodeJS.Timeout | undefined;
  let report = async (_isLast: boolean): Promise<void> => {};
  return {
    // A line is an object already: what is missing is put in front of it, and nothing is parsed.
    copyLine: settings.LOGS_TO_ELASTICSEARCH
      ? (line) => offer('logs', logFields + line.slice(1).trimEnd())
      : undefined,
    counts: writer.counts,
    reportMetrics(metrics, revision) {
      let before: Sample[] = [];
      let beforeAt = performance.now();
      let isFirst = true;
      report = async (isLast) => {
        const now = await metrics.samples();
        const figures = figuresBetween(before, now, performance.now() - beforeAt);
        if (!isFirst && !isLast && !hasActivity(figures)) return;
        isFirst = false;
        before = now;
        beforeAt = performance.now();
        const document = {
          '@timestamp': new Date().toISOString(),
          data_stream: streamFields('metrics', name, namespace),
          event: { kind: 'metric', dataset: name },
          service: { name, node: { name: instanceId } },
          faas: { name, ...(revision === undefined ? {} : { version: revision }) },
          process: { pid: process.pid, start: startedAt },
          dandelion: figures,
        };
        offer('metrics', JSON.stringify(document));
      };
      const sayFault = (error: unknown) => say(`the figures could not be read: ${String(error)}`);
      timer = setInterval(() => void report(false).catch(sayFault), metricsEveryMs).unref();
    },
    async close(signal) {
      clearInterval(timer);
      await report(true).catch(() => {});
      await writer.close(signal);
      search.close();
    },
  };
}
