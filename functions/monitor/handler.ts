import { modelName, readConfig } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import { type Event, parseEventData } from '../../shared/events.ts';
import { readRuntimeSettings } from '../../shared/function/settings.ts';
import { createSink } from '../../shared/function/sink.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { openDatabase } from '../../shared/stores/database.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { type MonitorSettings, monitorSettings } from './config.ts';
import { createDeadLetterOffice, type DeadLetterOffice } from './dead-letters.ts';
import { addDriftFigures } from './drift-figures.ts';
import { createDriftWatch, type DriftWatch } from './drift-watch.ts';
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
let driftWatch: DriftWatch;
let settings: MonitorSettings;

export async function init({ env, log, gauge }: InitContext): Promise<void> {
  settings = readConfig(monitorSettings, env);
  const db = await openDatabase(settings.DATABASE_URL);
  const search = openPredictionSearch(settings, log);
  predictionSearch = search;
  predictions = createPredictionKeeper(db, settings, search.offer);
  const sink = createSink(readRuntimeSettings(env, {}));
  deadLetters = createDeadLetterOffice(db, sink);
  reconciler = createReconciler(db, sink, settings);
  driftWatch = createDriftWatch({ db, objects: openObjects(settings), sink }, settings);
  addDriftFigures(gauge, db, settings.MODEL_NAME);
}

export async function shutdown(): Promise<void> {
  await predictionSearch?.close();
}

/** Watches over what serves: keeps the prediction log and dead letters, looks for drift, and heals lost deliveries. */
export async function handler(event: FunctionEvent, context: FunctionContext): Promise<unknown> {
  if (event.path.startsWith('/dead-letters')) return deadLetters.answer(event, context);
  if (event.path === '/drift') return answerDrift(event, context);
  if (event.path === '/reconcile' && event.method === 'POST') return reconciler.reconcile(context);
  if (event.path !== '/') throw new DandelionError('not-found', `Nothing is at ${event.path}.`);
  if (event.method !== 'POST') throw new DandelionError('method-not-allowed', 'POST events to /.');
  return takeEvent(event.cloudEvent, context);
}

/** GET: the last checks; POST: one now. `?model=` names another model than the one monitor was set up for. */
async function answerDrift(event: FunctionEvent, context: FunctionContext): Promise<unknown> {
  const model = modelName.safeParse(event.query.model ?? settings.MODEL_NAME);
  if (!model.success) throw new DandelionError('bad-request', 'Name one model by ?model=.');
  if (event.method === 'POST') {
    const check = await driftWatch.check(model.data, context);
    // An event, such as a PingSource sends, is answered by another or by none.
    return event.cloudEvent === undefined ? check : undefined;
  }
  if (event.method === 'GET') return driftWatch.list(model.data);
  throw new DandelionError('method-not-allowed', 'GET the last checks, or POST to check now.');
}

async function takeEvent(event: Event | undefined, context: FunctionContext): Promise<undefined> {
  if (event?.type === 'dev.dandelion.predictions.made.v1') {
    const { added, records } = await predictions.keep(event);
    context.log.debug({ 'event.id': event.id }, `${added} predictions stored`);
    if (added > 0) await driftWatch.noteRecords(records, context);
    return undefined;
  }
  if (event?.type === 'dev.dandelion.monitoring.requested.v1') {
    const { model = settings.MODEL_NAME } = parseEventData(event, event.type);
    const { status } = await driftWatch.check(model, context);
    context.log.info({ drift: { model, status } }, `drift: ${status}`);
    return undefined;
  }
  if (event !== undefined && reconcileTypes.has(event.type)) {
    await reconciler.reconcile(context);
    return undefined;
  }
  throw new DandelionError(
    'bad-event',
    `Monitor takes dev.dandelion.predictions.made.v1, dev.dandelion.monitoring.requested.v1 and ${[...reconcileTypes].join(' or ')}, not ${event?.type ?? 'a request without a CloudEvent'}.`,
  );
}
