import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type ObjectSettings,
  objectSettings,
  readConfig,
  type SearchSettings,
  searchSettings,
} from '../../config.ts';
import { DandelionError } from '../../errors.ts';
import { digestOf } from '../../events.ts';
import { type Platform, startPlatform } from '../../local/platform.ts';
import { type ModelRecord, readChampion, readModel } from '../../stores/models.ts';
import { listPhotoFiles, type PhotoFile } from '../photo-folder.ts';
import { runPipeline } from '../run-pipeline.ts';
import { prepareSource } from '../source.ts';
import type { BenchOptions } from './options.ts';

/** What everything is measured on: the platform with a model that serves, and the photos it was made of. */
export interface Stage {
  options: BenchOptions;
  platform: Platform;
  model: ModelRecord;
  /** Environment of a function started beside the platform, on the platform's stores. */
  env: Record<string, string | undefined>;
  logsDir: string;
  /** The S3 server of the surroundings, if they name one; nothing but its own measurement goes there. */
  server: ObjectSettings;
  /** As `server`: the Elasticsearch of the surroundings. */
  search: SearchSettings;
  /** Photos, sorted by name, with the folder's name as the label. */
  photos: readonly PhotoFile[];
  /** The one photo that servers classify. */
  photo: PhotoFile;
  say(sentence: string): void;
}

/** The bench has stores of its own: none of the surroundings may be measured, or filled with its data. */
const settingsOfOthers =
  /^(DATABASE_URL|OBJECTS_DIR|S3_.*|AWS_.*|TRACKING_DIR|MLFLOW_.*|ELASTICSEARCH_.*|LOGS_TO_.*|DANDELION_.*|HOST|PORT|K_.*|MODEL_.*|INGEST_.*|PREDICT_.*)$/;

/**
 * Starts the platform on folders of the bench's own, and runs the pipeline unless the same photos and the same
 * build have been through it.
 *
 * @throws DandelionError what the pipeline or the start of the platform throws
 */
export async function prepareStage(options: BenchOptions, say: (sentence: string) => void): Promise<Stage> {
  const server = readConfig(objectSettings);
  const search = readConfig(searchSettings);
  for (const name of Object.keys(process.env)) if (settingsOfOthers.test(name)) delete process.env[name];
  const { dataDir, distDir, images } = options;
  const wanted =
    images === undefined ? { kind: 'sample' as const } : { kind: 'images' as const, path: images };
  const source = await prepareSource(wanted, dataDir, say);
  const photos = await listPhotoFiles(images ?? join(dataDir, 'sample'));
  const build = await digestOfBuild(distDir);
  const name = `bench-${digestOf(source.digest, build, process.env.BACKBONE_URI ?? '', process.env.BACKBONE_PRECISION ?? '').slice(0, 12)}`;
  // Not the gate is measured here, so it lets every model pass.
  const gate = { GATE_MIN_ACCURACY: '0', GATE_MAX_OVERCONFIDENCE: '1' };
  const env = { ...source.env, ...gate, MODEL_NAME: name };
  const platform = await startPlatform({ dataDir, distDir, port: 0, env });
  try {
    const model = await trainedModel(platform, source, build, say);
    const objectsDir = { OBJECTS_DIR: join(dataDir, 'objects'), TRACKING_DIR: join(dataDir, 'tracking') };
    return {
      ...{ options, platform, model, photos, server, search, say },
      env: { ...process.env, ...objectsDir, DATABASE_URL: platform.databaseUrl, MODEL_NAME: name },
      logsDir: join(dataDir, 'logs', 'bench'),
      photo: middlePhoto(photos),
    };
  } catch (error) {
    await platform.stop();
    throw error;
  }
}

async function trainedModel(
  platform: Platform,
  source: Parameters<typeof runPipeline>[1],
  build: string,
  say: (sentence: string) => void,
): Promise<ModelRecord> {
  const { objects, modelName } = platform;
  const before = await readChampion(objects, modelName);
  if (before !== undefined) return readModel(objects, modelName, before.champion.version);
  say(`Training on ${source.title} ...`);
  const failure = await runPipeline(platform, source, build, {}, new AbortController().signal);
  if (failure !== undefined) throw failure;
  const made = await readChampion(objects, modelName);
  if (made === undefined) throw new DandelionError('no-champion', 'The pipeline ended without a model.');
  return readModel(objects, modelName, made.champion.version);
}

/** Of the functions that decide what a model is: another build of them may make another serving graph. */
async function digestOfBuild(distDir: string): Promise<string> {
  const hash = createHash('sha256');
  for (const name of ['preprocess', 'train']) {
    const folder = join(distDir, name);
    const files = (await readdir(folder).catch(() => [])).filter((file) => file.endsWith('.mjs')).sort();
    if (files.length === 0) {
      throw new DandelionError(
        'bad-config',
        `There is no built ${name} in ${distDir}: run \`npm run build\`.`,
      );
    }
    for (const file of files) hash.update(await readFile(join(folder, file)));
  }
  return hash.digest('hex');
}

/** The photo in the middle by size in bytes. */
function middlePhoto(photos: readonly PhotoFile[]): PhotoFile {
  const sorted = photos.toSorted((a, b) => a.sizeBytes - b.sizeBytes);
  const photo = sorted[Math.floor(sorted.length / 2)];
  if (photo === undefined) throw new DandelionError('no-images', 'There is no photo to measure with.');
  return photo;
}
