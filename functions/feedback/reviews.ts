import type { Logger } from 'pino';
import { DandelionError } from '../../shared/errors.ts';
import type { FunctionEvent } from '../../shared/function/types.ts';
import { schemaFaults } from '../../shared/schema-faults.ts';
import {
  type Feedback,
  type FeedbackVerdict,
  findFeedback,
  listFeedback,
  settleFeedback,
} from '../../shared/stores/feedback.ts';
import { imageKey } from '../../shared/stores/images.ts';
import { readModel } from '../../shared/stores/models.ts';
import { reviewQuery, reviewRequest } from './config.ts';
import { logFeedback } from './figures.ts';
import { dropUnwantedPhoto, type FeedbackStores, readWaitingPhoto, releasePhoto } from './photos.ts';

const itemPath = /^\/reviews\/([0-9a-f]{32})(?:\/(photo|accept|reject))?$/;

/** Everything under `/reviews`: a person looks at what was said, and accepts or rejects it. */
export async function answerReview(
  event: FunctionEvent,
  stores: FeedbackStores,
  log: Logger,
): Promise<unknown> {
  const { method, path } = event;
  if (path === '/reviews' && method === 'GET') return list(event, stores);
  const [, id, action] = itemPath.exec(path) ?? [];
  if (id === undefined) throw new DandelionError('not-found', `Nothing is at ${path}.`);
  const feedback = await find(stores, id);
  if (method === 'GET' && action === undefined) return feedback;
  if (method === 'GET' && action === 'photo') return photoOf(stores, feedback);
  if (method === 'POST' && action === 'accept') return logged(log, await accept(event, stores, feedback));
  if (method === 'POST' && action === 'reject') return logged(log, await reject(event, stores, feedback));
  throw new DandelionError(
    'method-not-allowed',
    'GET feedback or its /photo, or POST to its /accept or /reject.',
  );
}

function logged(log: Logger, feedback: Feedback): Feedback {
  if (feedback.status !== 'waiting') logFeedback(log, feedback.status, feedback);
  return feedback;
}

async function list(event: FunctionEvent, { db }: FeedbackStores): Promise<unknown> {
  const wanted = reviewQuery.safeParse(event.query);
  if (wanted.success) return listFeedback(db, wanted.data);
  throw new DandelionError(
    'bad-request',
    'Use ?status=waiting, accepted or rejected, ?client=, and ?limit=1 to 1000.',
  );
}

async function find({ db }: FeedbackStores, id: string): Promise<Feedback> {
  const feedback = await findFeedback(db, id);
  if (feedback !== undefined) return feedback;
  throw new DandelionError('feedback-unknown', `There is no feedback ${id}.`);
}

async function photoOf(stores: FeedbackStores, { id, photo, status }: Feedback): Promise<Uint8Array> {
  if (photo === null) throw new DandelionError('not-found', `The feedback ${id} came without a photo.`);
  const { sha256 } = photo;
  if (status !== 'accepted') return readWaitingPhoto(stores, { id, sha256 });
  return (await stores.objects.get(imageKey(sha256))).bytes;
}

/** The photo goes first: one without its feedback is never looked at, feedback without its photo would break a training. */
async function accept(event: FunctionEvent, stores: FeedbackStores, feedback: Feedback): Promise<Feedback> {
  const { label = feedback.label } = readReview(event, feedback);
  await checkLabel(stores, feedback, label);
  const { id, photo } = feedback;
  if (photo !== null && label !== null) await releasePhoto(stores, { id, sha256: photo.sha256 });
  await settle(stores, feedback, { status: 'accepted', label });
  return find(stores, id);
}

async function reject(event: FunctionEvent, stores: FeedbackStores, feedback: Feedback): Promise<Feedback> {
  readReview(event, feedback);
  await settle(stores, feedback, { status: 'rejected' });
  return find(stores, feedback.id);
}

function readReview({ rawBody, body }: FunctionEvent, { id, givenAt, status }: Feedback) {
  const parsed = reviewRequest.safeParse(rawBody.length === 0 ? {} : body);
  if (!parsed.success) {
    const faults = schemaFaults(parsed.error, 'review');
    throw new DandelionError(
      'bad-data',
      `The review does not fit: ${faults}. Send nothing, or JSON with "label" to correct it and "givenAt" as you saw it.`,
    );
  }
  if (status !== 'waiting') throw settled(id);
  const { givenAt: seen = givenAt } = parsed.data;
  if (new Date(seen).getTime() !== givenAt.getTime()) throw changed(id);
  return parsed.data;
}

async function settle(
  stores: FeedbackStores,
  { id, photo, givenAt }: Feedback,
  verdict: FeedbackVerdict,
): Promise<void> {
  if (!(await settleFeedback(stores.db, { id, givenAt }, verdict))) throw changed(id);
  if (photo !== null) await dropUnwantedPhoto(stores, { id, sha256: photo.sha256 });
}

function settled(id: string): DandelionError {
  return new DandelionError('feedback-settled', `The feedback ${id} was reviewed before.`);
}

function changed(id: string): DandelionError {
  return new DandelionError('feedback-changed', `The feedback ${id} has changed since: look at it again.`);
}

async function checkLabel({ objects }: FeedbackStores, { model, version }: Feedback, label: string | null) {
  const { classes } = await readModel(objects, model, version);
  if (label === null || classes.includes(label)) return;
  throw new DandelionError(
    'label-unknown',
    `${model} ${version} has no "${label}", only ${classes.join(', ')}.`,
  );
}
