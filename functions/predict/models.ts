import type { Logger } from 'pino';
import { DandelionError, toDandelionError } from '../../shared/errors.ts';
import { readChampion, readModel } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { openServedModel, type ServedModel, type ServingGraph } from '../../shared/stores/served-model.ts';
import type { PhotoAnswer } from '../../shared/vision/engine.ts';
import type { PredictSettings } from './config.ts';
import { startEngineThread } from './engine-thread.ts';
import { createEngines, type Engines } from './engines.ts';

/** Answers one photo, `size * size * 3` bytes. */
export type AnswerPhoto = (pixels: Uint8Array) => Promise<PhotoAnswer>;

/** A loaded model on its engines. */
export interface LoadedModel {
  record: ServedModel['record'];
  engineName: string;
  inputSize: number;
  answer: AnswerPhoto;
  /** As `answer`, with the heat of the class-activation map; undefined for a model whose graph has none. */
  explain: AnswerPhoto | undefined;
}

/** A model that is closed when its last user is done. */
interface HeldModel {
  model: LoadedModel;
  /** Undefined when the model has retired. */
  use<Result>(work: (model: LoadedModel) => Promise<Result>): Promise<Result> | undefined;
  retire(): Promise<void>;
}

/** The models this process answers with. */
export interface ModelRegistry {
  /**
   * Works with the model that serves, or with the version asked for by name (loaded on demand). The model stays
   * open until the work is done, whatever is deployed meanwhile.
   *
   * @throws DandelionError `no-champion`, `model-unknown` for a version that is not there, or `shutting-down` once the
   * registry is closed
   */
  withModel<Result>(
    version: string | undefined,
    work: (model: LoadedModel) => Promise<Result>,
  ): Promise<Result>;
  /** The version that serves, if any, without waiting. */
  servingVersion(): string | undefined;
  close(): Promise<void>;
}

/** Versions kept in memory beside the one that serves. */
const EXTRA_VERSIONS = 2;

/**
 * Opens the model(s) to serve. With MODEL_VERSION: that one, or the function never becomes ready. Without:
 * champion.json is followed, and a new champion takes over when it is loaded, so no request ever fails for it.
 *
 * @throws DandelionError `model-broken` for a pinned version
 */
export async function openModels(
  objects: ObjectStore,
  settings: PredictSettings,
  log: Logger,
): Promise<ModelRegistry> {
  const { MODEL_NAME: name, MODEL_VERSION: pinned } = settings;
  const extras = new Map<string, Promise<HeldModel>>();
  let serving: HeldModel | undefined;
  let following: Promise<void> | undefined;
  /** Why the champion cannot be loaded, since the last look. */
  let trouble: DandelionError | undefined;
  let closed = false;

  const load = async (version: string): Promise<HeldModel> => {
    const started = performance.now();
    const onFallback = (reason: string) =>
      log.warn(
        { ml: { model: { name, version } } },
        `onnxruntime does not run here, slower TensorFlow.js does: ${reason}`,
      );
    const model = await openServedModel(objects, name, version, { spin: true, onFallback });
    const loadMs = Math.round(performance.now() - started);
    log.info({ ml: { model: { name, version } }, engine: model.engine.name, loadMs }, 'model loaded');
    const startThread = (graph: ServingGraph) =>
      startEngineThread({ graph, classes: model.record.classes }, log);
    return holdModel(
      model,
      createEngines(model, { threads: settings.PREDICT_ENGINE_THREADS, startThread, log }),
    );
  };

  const follow = async (): Promise<void> => {
    const champion = (await readChampion(objects, name))?.champion;
    trouble = undefined;
    if (champion === undefined || champion.version === serving?.model.record.version) return;
    const next = await load(champion.version);
    const previous = serving;
    serving = next;
    await previous?.retire();
  };
  /** One look at a time; a champion that cannot be loaded leaves the old one serving. */
  const lookForChampion = (): Promise<void> => {
    following ??= follow()
      .catch((error: unknown) => {
        trouble = toDandelionError(error);
        const instead = serving === undefined ? 'nothing answers' : 'the old one goes on';
        log.error({ err: error }, `the champion cannot be loaded; ${instead}`);
      })
      .finally(() => {
        following = undefined;
      });
    return following;
  };

  if (pinned !== undefined) serving = await load(pinned);
  else await lookForChampion();
  const timer = pinned === undefined ? setInterval(lookForChampion, settings.PREDICT_FOLLOW_MS) : undefined;
  timer?.unref();

  const checkOpen = (): void => {
    if (closed) throw new DandelionError('shutting-down', 'The function is stopping; send this again.');
  };

  const find = async (version: string | undefined): Promise<HeldModel> => {
    checkOpen();
    if (version === undefined || version === serving?.model.record.version) {
      if (serving === undefined) await lookForChampion();
      if (serving !== undefined) return serving;
      throw nothingServes(settings, trouble);
    }
    if (pinned !== undefined) {
      throw new DandelionError('model-unknown', `This server has only ${name} ${pinned}, not ${version}.`);
    }
    return extras.get(version) ?? loadExtra(version);
  };

  const loadExtra = async (version: string): Promise<HeldModel> => {
    await readModel(objects, name, version);
    checkOpen();
    const loading = extras.get(version) ?? load(version);
    extras.set(version, loading);
    loading.catch(() => extras.delete(version));
    dropOldest(extras, EXTRA_VERSIONS).catch((error: unknown) =>
      log.error({ err: error }, 'a model did not close'),
    );
    return loading;
  };

  return {
    async withModel(version, work) {
      for (;;) {
        const held = await find(version);
        // A model that retired between finding and using it is no longer anyone's: find again.
        const outcome = held.use(work);
        if (outcome !== undefined) return outcome;
      }
    },

    servingVersion: () => serving?.model.record.version,

    async close() {
      closed = true;
      clearInterval(timer);
      await following;
      await serving?.retire();
      await dropOldest(extras, 0);
    },
  };
}

/** Why there is no model to answer with: none was deployed yet, or the one that was cannot be loaded. */
function nothingServes(
  { MODEL_NAME: name, PREDICT_FOLLOW_MS: retryAfterMs }: PredictSettings,
  trouble: DandelionError | undefined,
): DandelionError {
  if (trouble === undefined) {
    return new DandelionError(
      'no-champion',
      `No ${name} model has been deployed yet; wait for the pipeline to end, or start it with npm start.`,
      { retryAfterMs },
    );
  }
  const cure = trouble.code === 'model-broken' ? ' Let another version serve: npm run rollback.' : '';
  return new DandelionError(trouble.code, `${trouble.message}${cure}`, { cause: trouble, retryAfterMs });
}

function holdModel(served: ServedModel, engines: Engines): HeldModel {
  const { record, engine } = served;
  const users = new Set<Promise<unknown>>();
  const answer: AnswerPhoto = (pixels) => engines.answer(pixels, () => users.size === 1);
  const explain: AnswerPhoto = (pixels) => served.answer(pixels, { heat: true });
  const model = {
    record,
    engineName: engine.name,
    inputSize: engine.inputSize,
    answer,
    explain: engine.heatSide === undefined ? undefined : explain,
  };
  let retired = false;
  return {
    model,
    use(work) {
      if (retired) return undefined;
      const working = work(model);
      const settled = working.catch(() => {}).finally(() => users.delete(settled));
      users.add(settled);
      return working;
    },
    async retire() {
      retired = true;
      await Promise.all(users);
      await engines.close();
    },
  };
}

async function dropOldest(models: Map<string, Promise<HeldModel>>, keep: number): Promise<void> {
  for (const [version, loading] of [...models].slice(0, Math.max(0, models.size - keep))) {
    models.delete(version);
    const held = await loading.catch(() => undefined);
    await held?.retire();
  }
}
