import { createHmac, randomUUID } from 'node:crypto';
import { toDandelionError } from '../../shared/errors.ts';
import type { PredictionRecord } from '../../shared/events.ts';
import type { FunctionEvent, Notice } from '../../shared/function/types.ts';
import type { ModelRecord } from '../../shared/stores/models.ts';
import type { DecodedPhoto } from '../../shared/vision/decode.ts';
import type { PhotoAnswer } from '../../shared/vision/engine.ts';
import { measureStatistics } from '../../shared/vision/quality.ts';
import { SKETCH } from '../../shared/vision/sketch.ts';
import { labelOf } from './classify.ts';
import type { PredictSettings } from './config.ts';

type Statistics = PredictionRecord['input'];
type Photo = Pick<DecodedPhoto, 'pixels' | 'size' | 'width' | 'height'>;

/** One request on its way into the log. */
export interface NotedRequest {
  /** Statistics of a photo for its record; nothing where no record will be made. */
  measure(photo: Photo): Statistics;
  /** @param id of the answer, which feedback on it names */
  answered(
    id: string,
    model: Pick<ModelRecord, 'name' | 'version' | 'classes' | 'unknown'>,
    answer: PhotoAnswer,
    input: Statistics,
  ): void;
  /** A photo, or the whole request, ended with an error. */
  ended(error: unknown, version: string | undefined): void;
}

/** Tells monitor what was predicted, without ever being in the way of an answer. */
export interface PredictionLog {
  note(event: FunctionEvent, traceparent: string): NotedRequest;
  /** Hands over what waits. */
  close(): void;
}

/** Records a notice; 20 scores and a sketch each keep it below the 1 MiB that a broker takes. */
export const BATCH = 250;
const MOST_SCORES = 20;
/** Of what this release writes; see `predictionRecord`. */
const RECORD_VERSION = 3;
/** Every fourth pixel of every fourth row: 3136 of 50 176. */
const STRIDE = 4;

const unnoted: NotedRequest = { measure: () => ({}), answered: () => {}, ended: () => {} };

/** @param emit sends a notice in the background, from a bounded memory that counts what it drops */
export function createPredictionLog(
  settings: PredictSettings,
  emit: (notice: Notice) => void,
): PredictionLog {
  const { MODEL_NAME: name, PREDICTION_LOG_SAMPLE: rate, PREDICTION_LOG_SALT: salt } = settings;
  const revision = settings.K_REVISION ?? null;
  let waiting: PredictionRecord[] = [];
  let timer: NodeJS.Timeout | undefined;

  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    if (waiting.length === 0) return;
    const records = waiting;
    waiting = [];
    emit({ type: 'dev.dandelion.predictions.made.v1', subject: name, data: { records } });
  };
  const add = (record: PredictionRecord): void => {
    waiting.push(record);
    if (waiting.length >= BATCH) flush();
    else timer ??= setTimeout(flush, settings.PREDICTION_LOG_FLUSH_MS).unref();
  };

  return {
    note(event, traceparent) {
      if (settings.K_SINK === undefined || rate === 0 || !asksForPrediction(event)) return unnoted;
      const startedAt = performance.now();
      const sampled = Math.random() < rate;
      const common = (id: string = randomUUID()) => ({
        schemaVersion: RECORD_VERSION,
        id,
        time: new Date().toISOString(),
        traceId: traceparent.split('-')[1],
        revision,
        latencyMs: Math.round((performance.now() - startedAt) * 10) / 10,
        clientHash: salt === undefined ? undefined : clientHash(event, salt),
      });
      return {
        measure: (photo) => (sampled ? measureStatistics(photo, STRIDE) : {}),
        answered(id, model, answer, input) {
          if (!sampled) return;
          const { name, version, classes } = model;
          const { scores, sketch, familiarity } = answer;
          add({
            ...common(id),
            ...{ model: { name, version }, outcome: 'answered', code: null, weight: 1 / rate },
            input: familiarity === undefined ? input : { ...input, familiarity: rounded(familiarity) },
            label: labelOf(model, answer),
            scores: likeliestScores(classes, scores),
            sketchBytes: { id: SKETCH.id, float32: base64Of(sketch) },
          });
        },
        ended(thrown, version = settings.MODEL_VERSION) {
          const { code, status } = toDandelionError(thrown);
          const isOurs = status >= 500 && code !== 'cancelled';
          if (!isOurs && !sampled) return;
          add({
            ...common(),
            ...{ model: { name, version: version ?? null }, outcome: isOurs ? 'failed' : 'refused', code },
            ...{ weight: isOurs ? 1 : 1 / rate, label: null, scores: {}, input: {} },
          });
        },
      };
    },
    close: flush,
  };
}

function asksForPrediction({ method, path }: FunctionEvent): boolean {
  return method === 'POST' && (path === '/' || path.endsWith('/infer'));
}

/** In single precision a sum may end a little above 1, which the record's schema would refuse. */
function probability(score: number | undefined): number {
  return Number.isFinite(score) ? Math.min(1, Math.max(0, score ?? 0)) : 0;
}

function likeliestScores(classes: readonly string[], scores: Float32Array): Record<string, number> {
  const all = classes.map((label, index): [string, number] => [label, probability(scores[index])]);
  const isFew = all.length <= MOST_SCORES;
  return Object.fromEntries(
    isFew ? all : all.sort(([, one], [, other]) => other - one).slice(0, MOST_SCORES),
  );
}

/** Four digits: more would be bytes without a use. */
function rounded(value: number): number {
  return Math.round(value * 1e4) / 1e4;
}

function base64Of({ buffer, byteOffset, byteLength }: Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('base64');
}

/** Who asked; of use only with others of the same key, never to find the client. */
function clientHash({ client }: FunctionEvent, salt: string): string | undefined {
  if (client === undefined) return undefined;
  return createHmac('sha256', salt).update(client).digest('hex').slice(0, 16);
}
