import { readConfig } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import { createRateLimit } from '../../shared/function/security.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { openDatabase } from '../../shared/stores/database.ts';
import { feedbackId, measureLiveAccuracy, saveFeedback } from '../../shared/stores/feedback.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { clientHash } from './clients.ts';
import { BODY_LIMIT_BYTES, type FeedbackSettings, feedbackSettings } from './config.ts';
import { addFigures, logFeedback } from './figures.ts';
import { dropUnwantedPhoto, type FeedbackStores, keepPhoto } from './photos.ts';
import { readFeedback } from './request.ts';
import { answerReview } from './reviews.ts';

/** Anyone who may ask predict may say whether it was right; nothing comes of it before a review. */
export const open = true;
export const guarded = ['/reviews'] as const;
export const bodyLimitBytes = BODY_LIMIT_BYTES;

let settings: FeedbackSettings;
let stores: FeedbackStores;
let limitRate: (client: string) => void;

export async function init({ env, gauge }: InitContext): Promise<void> {
  settings = readConfig(feedbackSettings, env);
  stores = { db: await openDatabase(settings.DATABASE_URL), objects: openObjects(settings) };
  limitRate = createRateLimit(settings.FEEDBACK_PER_MINUTE / 60, settings.FEEDBACK_PER_MINUTE);
  addFigures(gauge, stores.db, settings.MODEL_NAME);
}

/** Someone says whether an answer was right; once a person has reviewed it, it counts and its photo is learnt from. */
export async function handler(event: FunctionEvent, context: FunctionContext): Promise<unknown> {
  const { path, method } = event;
  if (path.startsWith('/reviews')) return answerReview(event, stores, context.log);
  if (path === '/accuracy' && method === 'GET') return accuracy();
  if (path !== '/') throw new DandelionError('not-found', `Nothing is at ${path}; POST feedback to /.`);
  if (method !== 'POST') throw new DandelionError('method-not-allowed', 'POST feedback to /.');
  return takeFeedback(event, context);
}

async function takeFeedback(event: FunctionEvent, context: FunctionContext): Promise<unknown> {
  const { client: address = '' } = event;
  limitRate(address);
  const { said, photo: bytes } = await readFeedback(event, stores.objects);
  const { prediction, model, predicted, label } = said;
  const client = clientHash(address, settings.PREDICTION_LOG_SALT);
  const id = feedbackId({ prediction, client });
  const photo = bytes === undefined ? null : await keepPhoto(stores, settings, { id, bytes });
  const saved = await saveFeedback(
    stores.db,
    {
      ...{ prediction, client, predicted, label, photo },
      ...{ model: model.name, version: model.version },
    },
    { ofAll: settings.FEEDBACK_MOST_WAITING, ofClient: settings.FEEDBACK_MOST_OF_CLIENT },
  );
  const isKept = saved?.status === 'waiting';
  if (photo !== null && !isKept) await dropUnwantedPhoto(stores, { id, sha256: photo.sha256 });
  if (saved === undefined) {
    throw new DandelionError(
      'feedback-full',
      'Too much feedback, yours or that of all, waits for a review; try again later.',
      {
        retryAfterMs: 3_600_000,
      },
    );
  }
  const { replacedPhoto, status } = saved;
  if (replacedPhoto !== null) await dropUnwantedPhoto(stores, { id, sha256: replacedPhoto });
  const data = { feedback: id, prediction, model, predicted, label, photo: photo?.sha256 ?? null };
  if (isKept) {
    context.emit({ type: 'dev.dandelion.feedback.given.v1', subject: model.version, data });
    logFeedback(context.log, 'given', { ...said, model: model.name, version: model.version });
  }
  context.status(isKept ? 202 : 200);
  return { id, status };
}

async function accuracy(): Promise<unknown> {
  const { MODEL_NAME: model } = settings;
  return { model, versions: await measureLiveAccuracy(stores.db, model) };
}
