import { randomUUID } from 'node:crypto';
import type { PredictionRecord } from '../../events.ts';
import { createLogger, functionLogger } from '../../function/log.ts';
import { createMetrics } from '../../function/metrics.ts';
import { figuresBetween } from '../../function/metrics-document.ts';
import {
  predictionDocument,
  type SearchDocument,
  streamFields,
  streamName,
} from '../../stores/search-documents.ts';
import { seededRandom } from '../../vision/random.ts';

const steps = ['ingest', 'preprocess', 'train', 'evaluate', 'deploy'] as const;
const HOUR_MS = 3_600_000;

/** A day of an installation, as its functions write it, ending now. */
export async function dayOfDocuments(namespace: string): Promise<SearchDocument[]> {
  const random = seededRandom(8);
  const now = Date.now();
  const documents: SearchDocument[] = [];
  const log = (
    name: string,
    time: number,
    level: 'info' | 'warn' | 'error',
    fields: object,
    message: string,
  ) => void documents.push(logDocument({ namespace, name, time, level, fields, message }));

  for (let hour = 0; hour < 24; hour++) {
    const start = now - (24 - hour) * HOUR_MS;
    for (let photo = 0; photo < 20; photo++) {
      const time = start + (photo / 20) * HOUR_MS;
      const record = prediction(random, time, hour);
      documents.push(predictionDocument(record, namespace));
      const status = record.outcome === 'answered' ? 200 : record.outcome === 'refused' ? 422 : 503;
      log('predict', time, status < 500 ? 'info' : 'error', request(record, status), `POST / ${status}`);
      if (photo % 5 === 0 && record.outcome === 'answered') reviewed(log, record, time, random);
    }
    for (const name of ['predict', 'webapp', 'monitor']) {
      documents.push(await metricsDocument(namespace, name, start, Math.round(20 + 30 * random())));
      if (hour % 4 === 0) log(name, start, 'info', took('init', (0.2 + random()) * 1e9), 'ready');
    }
    if (hour % 6 === 0) {
      for (const [index, name] of steps.entries()) {
        const outcome = name === 'evaluate' && hour === 6 ? 'failure' : 'success';
        const fields = { ...took('step', (index + 1) * (2 + random()) * 1e9), 'event.outcome': outcome };
        log(name, start, 'info', fields, `run ${outcome}`);
      }
      const error = { event: { action: 'dead-letter', id: randomUUID() }, 'error.code': 'bad-data' };
      log('monitor', start, 'error', error, 'an event that nobody took');
    }
  }
  const drift = { model: 'plants', version: 'v0000000002', ordinal: 3, action: 'retrain' };
  log('monitor', now - HOUR_MS, 'warn', { drift }, 'drift: retrain');
  return documents;
}

function prediction(random: () => number, time: number, hour: number): PredictionRecord {
  const isCanary = hour > 16 && random() < 0.5;
  const model = { name: 'plants', version: isCanary ? 'v0000000002' : 'v0000000001' };
  const common = {
    ...{ schemaVersion: 2 as const, id: randomUUID(), time: new Date(time).toISOString(), model, weight: 1 },
    ...{ revision: isCanary ? 'predict-00002' : 'predict-00001', latencyMs: 8 + 1400 * random() ** 40 },
  };
  const luck = random();
  if (luck < 0.08) {
    const outcome = luck < 0.02 ? 'failed' : 'refused';
    const code = outcome === 'failed' ? 'no-champion' : luck < 0.05 ? 'not-an-image' : 'truncated-image';
    return { ...common, outcome, code, label: null, scores: {}, input: {} };
  }
  const score = 0.55 + 0.45 * Math.sqrt(random());
  const label = random() < 0.06 ? 'unknown' : random() < 0.6 ? 'dandelion' : 'grass';
  const [first, second] = label === 'grass' ? ['grass', 'dandelion'] : ['dandelion', 'grass'];
  const dusk = hour > 18 ? 0.2 : 0;
  const input = { brightness: 0.35 + 0.25 * random() - dusk, sharpness: 40 + 60 * random(), shortSide: 480 };
  const answer = { outcome: 'answered' as const, code: null, label };
  return { ...common, ...answer, scores: { [first]: score, [second]: 1 - score }, input };
}

function request({ latencyMs, code, revision }: PredictionRecord, status: number) {
  return {
    ...took('request', latencyMs * 1e6),
    'event.outcome': status < 500 ? 'success' : 'failure',
    'http.response.status_code': status,
    'faas.version': revision,
    ...(code === null ? {} : { 'error.code': code }),
  };
}

function reviewed(
  log: (name: string, time: number, level: 'info', fields: object, message: string) => void,
  { model, label, scores }: PredictionRecord,
  time: number,
  random: () => number,
): void {
  const score = Math.max(...Object.values(scores));
  const correct = random() < score ? 1 : 0;
  const feedback = { predicted: label, label: correct ? label : 'moss', correct, score };
  for (const action of ['feedback-given', random() < 0.9 ? 'feedback-accepted' : 'feedback-rejected']) {
    log('feedback', time, 'info', { event: { action }, ml: { model, feedback } }, action);
  }
}

const took = (action: string, nanoseconds: number) => ({
  'event.action': action,
  'event.duration': Math.round(nanoseconds),
});

interface LogLine {
  namespace: string;
  name: string;
  time: number;
  level: 'info' | 'warn' | 'error';
  fields: object;
  message: string;
}

/** A line of the product's logger, at another time than now. */
function logDocument({ namespace, name, time, level, fields, message }: LogLine): SearchDocument {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  functionLogger(createLogger({ name, destination }), name)[level](fields, message);
  const line = JSON.parse(lines[0] ?? '{}') as object;
  return documentOf('logs', namespace, name, { ...line, '@timestamp': new Date(time).toISOString() });
}

async function metricsDocument(namespace: string, name: string, time: number, invocations: number) {
  const metrics = createMetrics(name, () => 1);
  for (let invocation = 0; invocation < invocations; invocation++) metrics.invoked('http', 0.01);
  const dandelion = figuresBetween([], await metrics.samples(), 60_000);
  return documentOf('metrics', namespace, name, {
    ...{ '@timestamp': new Date(time).toISOString(), event: { kind: 'metric', dataset: name } },
    ...{ service: { name, node: { name: 'node-1' } }, faas: { name }, dandelion },
  });
}

function documentOf(
  type: 'logs' | 'metrics',
  namespace: string,
  name: string,
  fields: object,
): SearchDocument {
  const document = { ...fields, data_stream: streamFields(type, name, namespace) };
  return { stream: streamName(type, name, namespace), id: randomUUID(), json: JSON.stringify(document) };
}
