import { readConfig } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { loadJpegTurbo } from '../../shared/vision/jpeg.ts';
import { type ClassifyOptions, classifyPhoto, classifyPhotos, explainChoices } from './classify.ts';
import { BODY_LIMIT_BYTES, type PredictSettings, predictSettings } from './config.ts';
import { type LoadedModel, type ModelRegistry, openModels } from './models.ts';
import { answerInferenceProtocol } from './open-inference.ts';
import { readPhotos } from './photos.ts';
import { createPredictionLog, type NotedRequest, type PredictionLog } from './prediction-log.ts';

export const open = true;
export const bodyLimitBytes = BODY_LIMIT_BYTES;

let settings: PredictSettings;
let models: ModelRegistry;
let predictionLog: PredictionLog;

/** Batches of the prediction log that wait for a sink; a few megabytes at most. */
export const noticeBuffer = 20;

export async function init({ env, log, emit }: InitContext): Promise<void> {
  settings = readConfig(predictSettings, env);
  predictionLog = createPredictionLog(settings, emit);
  const [opened] = await Promise.all([openModels(openObjects(settings), settings, log), loadJpegTurbo()]);
  models = opened;
}

export async function shutdown(): Promise<void> {
  predictionLog.close();
  await models.close();
}

/** A photo comes in, its label goes out; `/v2` speaks the Open Inference Protocol. */
export async function handler(event: FunctionEvent, context: FunctionContext): Promise<unknown> {
  const noted = predictionLog.note(event, context.traceparent);
  try {
    return await answerRequest(event, context, noted);
  } catch (error) {
    noted.ended(error, models.servingVersion());
    throw error;
  }
}

async function answerRequest(
  event: FunctionEvent,
  context: FunctionContext,
  noted: NotedRequest,
): Promise<unknown> {
  if (event.path === '/v2' || event.path.startsWith('/v2/')) {
    return answerInferenceProtocol(event, context, { models, settings, noted });
  }
  if (event.path !== '/')
    throw new DandelionError('not-found', `Nothing is at ${event.path}; POST photos to /.`);
  if (event.method === 'GET') return models.withModel(undefined, describeModel);
  if (event.method !== 'POST') throw new DandelionError('method-not-allowed', 'POST a photo to /.');

  const startedAt = performance.now();
  const options = { explain: readExplain(event.query.explain) };
  const { photos, many } = await readPhotos(event, settings, context.signal);
  const answer = await models.withModel(undefined, async (model) => {
    const predictions = many
      ? { predictions: await classifyPhotos(model, photos, noted, options) }
      : await classifyOnly(model, photos, noted, options);
    const { name, version } = model.record;
    return { ...predictions, model: { name, version }, latencyMs: roundedSince(startedAt) };
  });
  if (event.cloudEvent === undefined) return answer;
  return context.result('dev.dandelion.prediction.made.v1', answer, answer.model.version);
}

/** @throws DandelionError `bad-request` */
function readExplain(asked: FunctionEvent['query'][string]): ClassifyOptions['explain'] {
  if (asked === undefined) return 'false';
  const choice = explainChoices.find((known) => known === asked);
  if (choice !== undefined) return choice;
  throw new DandelionError('bad-request', `explain is one of ${explainChoices.join(', ')}, not "${asked}".`);
}

function classifyOnly(
  model: LoadedModel,
  photos: readonly Uint8Array[],
  noted: NotedRequest,
  options: ClassifyOptions,
) {
  const [photo] = photos;
  if (photo === undefined) throw new DandelionError('bad-request', 'The request has no photo.');
  return classifyPhoto(model, photo, noted, options);
}

/** What serves, for people and pages that ask without a photo. */
async function describeModel({ record, engineName }: LoadedModel) {
  const { name, version, classes, createdAt, dataset, metrics } = record;
  return { model: { name, version }, classes, createdAt, dataset, validation: metrics, engine: engineName };
}

function roundedSince(startedAt: number): number {
  return Math.round((performance.now() - startedAt) * 10) / 10;
}
