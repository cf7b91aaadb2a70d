import type { EventData, PredictionRecord } from '../../shared/events.ts';
import { sourceOf } from '../../shared/function/context.ts';
import { requestRetraining } from '../../shared/function/retraining.ts';
import type { Sink } from '../../shared/function/sink.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';
import {
  countNewLabels,
  type DriftCheck,
  type DriftDecision,
  decideDriftCheck,
  lastDriftCheck,
  lastSource,
  listDriftChecks,
  photoIdentity,
  readDriftWindow,
  retrainingsByDrift,
  storeDriftCheck,
} from '../../shared/stores/drift-checks.ts';
import { readReference } from '../../shared/stores/drift-reference.ts';
import { readChampion, readModel } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { detectDrift, levelOfCheck, type ObservedPhoto } from '../../shared/vision/drift.ts';
import { SKETCH } from '../../shared/vision/sketch.ts';
import type { MonitorSettings } from './config.ts';
import { measurePerformance } from './performance.ts';
import { DAY_MS, decideRetraining } from './retrain-policy.ts';

/** Looks whether what the champion is asked, and what it answers, is still what it was trained on. */
export interface DriftWatch {
  /**
   * Checks when enough different photos have come since the last check, but for no more than a share of the time. Never throws:
   * the records are what counts.
   */
  noteRecords(records: readonly PredictionRecord[], context: Context): Promise<void>;
  /**
   * Checks now, and takes up an alarm that waited.
   *
   * @throws DandelionError of the stores
   */
  check(model: string, context: Context): Promise<DriftOutcome>;
  /** The last checks of a model, the latest first. */
  list(model: string): Promise<{ checks: DriftCheck[] }>;
}

type Context = Pick<FunctionContext, 'functionName' | 'log' | 'emit' | 'traceparent'>;

/** What a check came to. */
export type DriftOutcome =
  | { status: 'no-champion' | 'no-reference' }
  /** With the alarm of an earlier check that waited, if there was one. */
  | { status: 'too-few-photos'; photos: number; wanted: number; alarm?: Alarm }
  | { status: 'checked-elsewhere' }
  | { status: 'checked'; check: Omit<DriftCheck, 'checkedAt'>; alarm?: Alarm };

/** Drift that was seen, and what came of it now. */
export interface Alarm {
  version: string;
  /** Of the check that saw it. */
  ordinal: number;
  decision: DriftDecision;
  /** The event that asks for a training, and who chains the steps of it. */
  requested?: { source: string; id: string; by: 'airflow' | 'broker' };
}

interface Stores {
  db: Database;
  objects: ObjectStore;
  sink: Sink | undefined;
}

/** More photos of a window would only make what does not matter significant. */
const MOST_PHOTOS = 2000;
const MOST_LISTED = 50;

/**
 * Makes the watch of one process. Several may look at the same model: the database lets one of them check.
 */
export function createDriftWatch({ db, objects, sink }: Stores, settings: MonitorSettings): DriftWatch {
  /**
   * Different photos since the last check, by model: a client that asks about one again and again starts none. Of what came
   * before this process started only a check can tell, so the first record starts one.
   */
  const newPhotos = new Map<string, { before: number; since: Set<string> }>();
  const pausedUntil = new Map<string, number>();
  let known: { key: string; photos: ObservedPhoto[] } | undefined;

  /** One champion's at a time: it does not change. */
  const referenceOf = async (model: string, version: string): Promise<ObservedPhoto[] | undefined> => {
    const key = `${model}/${version}`;
    if (known?.key === key) return known.photos;
    const photos = await readReference(objects, model, version, SKETCH.id);
    if (photos !== undefined) known = { key, photos };
    return photos;
  };

  /** What the policy says of an alarm; what it says is done before it is written down, under an id that makes a repeat harmless. */
  const settle = async (
    { model, version, ordinal }: Pick<DriftCheck, 'model' | 'version' | 'ordinal'>,
    context: Context,
  ): Promise<Alarm> => {
    const alarm: Omit<Alarm, 'decision'> = { version, ordinal };
    const now = new Date();
    const since = new Date(now.getTime() - Math.max(DAY_MS, settings.DRIFT_RETRAIN_COOL_DOWN_MS));
    const [retrainings, record, source] = await Promise.all([
      retrainingsByDrift(db, model, since),
      readModel(objects, model, version),
      lastSource(db, model),
    ]);
    const newLabels = await countNewLabels(db, model, new Date(record.createdAt));
    const decision =
      source === undefined
        ? ({ action: 'none', reason: 'no source of photos is known to train on' } as const)
        : decideRetraining({ now, retrainings, newLabels }, settings);
    if (decision.action === 'retrain' && source !== undefined) {
      const identity = { id: `drift-${version}-${ordinal}`, source: sourceOf(context.functionName) };
      const by = await requestRetraining(
        {
          ...identity,
          data: { model, source, seed: record.training.seed, reason: `drift of what ${version} is asked` },
          traceparent: context.traceparent,
        },
        { settings, sink },
      );
      alarm.requested = { ...identity, by };
    }
    await decideDriftCheck(db, { model, version, ordinal }, decision);
    context.log.warn(
      { drift: { model, version, ordinal, ...decision } },
      `drift: ${decision.action}, ${decision.reason}`,
    );
    return { ...alarm, decision };
  };

  const check = async (model: string, context: Context): Promise<DriftOutcome> => {
    const version = (await readChampion(objects, model))?.champion.version;
    if (version === undefined) return { status: 'no-champion' };
    const reference = await referenceOf(model, version);
    if (reference === undefined) return { status: 'no-reference' };
    const last = await lastDriftCheck(db, { model, version });
    const { photos, from, until } = await readDriftWindow(db, { model, version }, MOST_PHOTOS);
    if (photos.length < settings.DRIFT_WINDOW) {
      const tooFew = {
        status: 'too-few-photos',
        photos: photos.length,
        wanted: settings.DRIFT_WINDOW,
      } as const;
      return last?.decision?.action === 'wait' ? { ...tooFew, alarm: await settle(last, context) } : tooFew;
    }
    const ordinal = (last?.ordinal ?? 0) + 1;
    const level = levelOfCheck(settings.DRIFT_FALSE_ALARMS, ordinal);
    const performance = await measurePerformance(
      { db, objects },
      { model, version },
      settings.DRIFT_MIN_REVIEWED,
    );
    const report = detectDrift(reference, photos, { level, seed: ordinal, performance });
    const undecided = report.drifted ? ({ action: 'wait', reason: 'just seen' } as const) : null;
    const found = { model, version, ordinal, windowFrom: from, windowUntil: until, report };
    if (!(await storeDriftCheck(db, { ...found, decision: undecided })))
      return { status: 'checked-elsewhere' };
    if (!report.drifted) return { status: 'checked', check: { ...found, decision: null } };
    const alarm = await settle(found, context);
    const { decision } = alarm;
    context.emit({
      type: 'dev.dandelion.drift.detected.v1',
      subject: version,
      data: noticeOf(found, decision),
    });
    return { status: 'checked', check: { ...found, decision }, alarm };
  };

  return {
    check,
    list: async (model) => ({ checks: await listDriftChecks(db, model, MOST_LISTED) }),
    async noteRecords(records, context) {
      for (const [model, answers] of answersByModel(records)) {
        const counted = newPhotos.get(model) ?? { before: Number.POSITIVE_INFINITY, since: new Set() };
        newPhotos.set(model, counted);
        for (const answer of answers) {
          if (counted.since.size < settings.DRIFT_WINDOW) counted.since.add(photoIdentity(answer));
        }
        const startedAt = performance.now();
        const isEnough = counted.before + counted.since.size >= settings.DRIFT_WINDOW;
        if (!isEnough || startedAt < (pausedUntil.get(model) ?? 0)) continue;
        newPhotos.set(model, { before: 0, since: new Set() });
        try {
          const outcome = await check(model, context);
          if (outcome.status === 'too-few-photos') {
            newPhotos.set(model, { before: outcome.photos, since: new Set() });
          }
          context.log.info({ drift: { model, status: outcome.status } }, `drift: ${outcome.status}`);
        } catch (error) {
          context.log.error({ err: error }, 'drift could not be checked; the next answers try again');
        }
        const now = performance.now();
        pausedUntil.set(model, now + (now - startedAt) * (1 / settings.DRIFT_TIME_SHARE - 1));
      }
    },
  };
}

function answersByModel(records: readonly PredictionRecord[]): Map<string, PredictionRecord[]> {
  const answered = records.filter(({ outcome }) => outcome === 'answered');
  return Map.groupBy(answered, ({ model }) => model.name);
}

function noticeOf(
  { model, version, ordinal, windowFrom, windowUntil, report }: Omit<DriftCheck, 'checkedAt' | 'decision'>,
  decision: DriftDecision,
): EventData<'dev.dandelion.drift.detected.v1'> {
  return {
    model: { name: model, version },
    check: ordinal,
    window: { from: windowFrom.toISOString(), until: windowUntil.toISOString() },
    ...{ photos: report.photos, level: report.level, findings: report.findings, decision },
  };
}
