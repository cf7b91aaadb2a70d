import { readConfig } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import type { Event } from '../../shared/events.ts';
import { readRuntimeSettings } from '../../shared/function/settings.ts';
import { createSink } from '../../shared/function/sink.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { openDatabase } from '../../shared/stores/database.ts';
import { monitorSettings } from './config.ts';
import { createDeadLetterOffice, type DeadLetterOffice } from './dead-letters.ts';
import { createPredictionKeeper, type PredictionKeeper } from './prediction-records.ts';
import { openPredictionSearch, type PredictionSearch } from './prediction-search.ts';
import { createReconciler, type Reconciler } from './reconciler.ts';

export const batch = true;
/** A dead letter is as large as any event may be, and must not be refused for it. */
export const bodyLimitBytes = 8 * 1024 * 1024;

/** A request, or Knative's PingSource. */
const reconcileTypes = new Set(['dev.dandelion.reconcile.requested.v1', 'dev.knative.sources.ping']);

let predictions: PredictionKeeper;
let predictionSearch: PredictionSearch | undefined;
let deadLetters: DeadLetterOffice;
let reconciler: Reconciler;

export async function init({ env, log }: InitContext): Promise<void> {
  const settings = readConfig(monitorSettings, env);
  const db = await openDatabase(settings.DATABASE_URL);
  const search = openPredictionSearch(settings, log);
  predictionSearch = search;
  predictions = createPredictionKeeper(db, settings, search.offer);
  const sink = createSink(readRuntimeSettings(env, {}));
  deadLetters = createDeadLetterOffice(db, sink);
  reconciler = createReconciler(db, sink, settings);
}

export async function shutdown(): Promise<void> {
  await predictionSearch?.close();
}

/** Watches over what serves: keeps the prediction log and dead letters, and heals lost deliveries. */
export async function handler(event: FunctionEvent, context: FunctionContext): Promise<unknown> {
  if (event.path.startsWith('/dead-letters')) return deadLetters.answer(event, context);
  if (event.path === '/reconcile' && event.method === 'POST') return reconciler.reconcile(context);
  if (event.path !== '/') throw new DandelionError('not-found', `Nothing is at ${event.path}.`);
  if (event.method !== 'POST') throw new DandelionError('method-not-allowed', 'POST events to /.');
  return takeEvent(event.cloudEvent, context);
}

async function takeEvent(event: Event | undefined, context: FunctionContext): Promise<undefined> {
  if (event?.type === 'dev.dandelion.predictions.made.v1') {
    const stored = await predictions.keep(event);
    context.log.debug({ 'event.id': event.id }, `${stored} predictions stored`);
    return undefined;
  }
  if (event !== undefined && reconcileTypes.has(event.type)) {
    await reconciler.reconcile(context);
    return undefined;
  }
  throw new DandelionError(
    'bad-event',
    `Monitor takes dev.dandelion.predictions.made.v1 and ${[...reconcileTypes].join(' or ')}, not ${event?.type ?? 'a request without a CloudEvent'}.`,
  );
}
