import { subtle } from 'node:crypto';
import { z } from 'zod';
import { modelName } from '../config.ts';
import { DandelionError } from '../errors.ts';
import { classLabel, eventSchemas, gateCheck, metricsSummary, modelVersion } from '../events.ts';
import type { ObjectStore } from './objects.ts';

/** `models/{name}/{version}/model.json`: all that serving and an auditor need to know of a model. */
export const modelRecord = z.object({
  schemaVersion: z.literal(1),
  name: modelName,
  version: modelVersion,
  createdAt: z.iso.datetime(),
  classes: z.array(classLabel).min(2),
  dataset: eventSchemas['dev.dandelion.features.stored.v1'].shape.dataset,
  extractor: z.object({
    id: z.string(),
    dimension: z.number().int(),
    /** Hex SHA-256 of the backbone's graph; null where features need none. */
    digest: z.string().nullable(),
  }),
  preprocessing: z.object({ size: z.number().int(), resize: z.literal('cover'), colour: z.literal('rgb') }),
  training: z.object({
    runId: z.string(),
    seed: z.number().int(),
    backend: z.string(),
    regularisation: z.number(),
    temperature: z.number(),
    crossValidation: z.object({ accuracy: z.number(), logLoss: z.number() }),
    trainingMs: z.number(),
  }),
  /** On the validation split; the test split belongs to evaluate. */
  metrics: metricsSummary,
  /** A photo less familiar than the threshold is of none of the classes; models of earlier versions do not tell. */
  unknown: z.object({ threshold: z.number(), acceptance: z.number() }).optional(),
  productVersion: z.string(),
  gitCommit: z.string().nullable(),
  files: z.record(z.string(), z.object({ digest: z.string(), sizeBytes: z.number().int() })),
});
export type ModelRecord = z.infer<typeof modelRecord>;

/** `models/{name}/{version}/evaluation.json`: the gate's verdict and the figures behind it. */
export const evaluationRecord = z.object({
  schemaVersion: z.literal(1),
  evaluatedAt: z.iso.datetime(),
  approved: z.boolean(),
  checks: z.array(gateCheck),
  /** On the test split. */
  metrics: metricsSummary,
  /** Rows are the true class, columns the predicted one, in the order of the model's classes. */
  confusion: z.array(z.array(z.number().int())),
  champion: z.object({ version: modelVersion, metrics: metricsSummary }).nullable(),
});
export type EvaluationRecord = z.infer<typeof evaluationRecord>;

/** `models/{name}/champion.json`: the truth of who serves. */
const championRecord = z.object({
  schemaVersion: z.literal(1),
  version: modelVersion,
  previous: modelVersion.nullable(),
  deployedAt: z.iso.datetime(),
});
export type ChampionRecord = z.infer<typeof championRecord>;

/** The model as an ONNX graph, where it has a backbone. */
export const GRAPH_FILE = 'serving.onnx';

/** Where all of a model lies. */
export const folderOf = (name: string, version: string) => `models/${name}/${version}`;
const championKey = (name: string) => `models/${name}/champion.json`;

/** Writes a model's files, and the record that names their digests last: a model without a record is none. */
export async function saveModel(
  objects: ObjectStore,
  draft: Omit<ModelRecord, 'files'>,
  contents: Readonly<Record<string, Uint8Array>>,
): Promise<ModelRecord> {
  const files: ModelRecord['files'] = {};
  for (const [file, bytes] of Object.entries(contents)) {
    const { digest } = await objects.put(`${folderOf(draft.name, draft.version)}/${file}`, bytes);
    files[file] = { digest, sizeBytes: bytes.byteLength };
  }
  const record: ModelRecord = { ...draft, files };
  await objects.put(`${folderOf(draft.name, draft.version)}/model.json`, jsonBytes(record));
  return record;
}

/** @throws DandelionError `model-unknown`, or `model-broken` when the record cannot be read */
export async function readModel(objects: ObjectStore, name: string, version: string): Promise<ModelRecord> {
  const found = await readJson(objects, `${folderOf(name, version)}/model.json`, modelRecord);
  if (found === undefined) {
    throw new DandelionError('model-unknown', `The object store has no model ${name} ${version}.`);
  }
  return found.value;
}

/**
 * Reads one file of a model and holds it against the digest in the record.
 *
 * @throws DandelionError `object-missing` or `object-corrupt`
 */
export async function readModelFile(
  objects: ObjectStore,
  record: ModelRecord,
  file: string,
): Promise<Buffer> {
  const { bytes, intact } = await fetchModelFile(objects, record, file);
  await intact;
  return bytes;
}

/**
 * The bytes of a model's file while their digest is still worked out, by another thread: for who has something to do
 * meanwhile (40 ms for a 13 MB graph). Nothing may come of the bytes unless `intact` resolves.
 *
 * @throws DandelionError `object-missing`; `intact` rejects with `object-corrupt`
 */
export async function fetchModelFile(
  objects: ObjectStore,
  record: ModelRecord,
  file: string,
): Promise<{ bytes: Buffer; intact: Promise<void> }> {
  const key = `${folderOf(record.name, record.version)}/${file}`;
  const { bytes } = await objects.get(key);
  const check = async () => {
    const digest = Buffer.from(await subtle.digest('SHA-256', bytes)).toString('hex');
    if (digest === record.files[file]?.digest) return;
    throw new DandelionError('object-corrupt', `"${key}" is not what was stored: its digest differs.`);
  };
  const intact = check();
  // Heard by whoever awaits it; until then a failure is not yet nobody's.
  intact.catch(() => {});
  return { bytes, intact };
}

/** The versions in the object store, in no particular order. */
export async function listModelVersions(objects: ObjectStore, name: string): Promise<string[]> {
  const versions = new Set<string>();
  for await (const { key } of objects.list(`models/${name}/`)) {
    const match = /\/(v[0-9a-f]{10})\/model\.json$/.exec(key);
    if (match?.[1] !== undefined) versions.add(match[1]);
  }
  return [...versions];
}

/** Writes the gate's verdict on a version: `evaluation.json`. */
export async function writeEvaluation(
  objects: ObjectStore,
  name: string,
  version: string,
  evaluation: EvaluationRecord,
): Promise<void> {
  await objects.put(`${folderOf(name, version)}/evaluation.json`, jsonBytes(evaluation));
}

/** Writes what the test split said of a model: `report.json` for programs, `report.html` for people. */
export async function writeReport(
  objects: ObjectStore,
  name: string,
  version: string,
  { json, page }: { json: Uint8Array; page: Uint8Array },
): Promise<void> {
  await objects.put(`${folderOf(name, version)}/report.json`, json);
  await objects.put(`${folderOf(name, version)}/report.html`, page);
}

/** The gate's verdict on a version; undefined before there is one. @throws DandelionError `model-broken` */
export async function readEvaluation(
  objects: ObjectStore,
  name: string,
  version: string,
): Promise<EvaluationRecord | undefined> {
  return (await readJson(objects, `${folderOf(name, version)}/evaluation.json`, evaluationRecord))?.value;
}

/** Who serves now, with the etag a promotion must present; undefined before the first deployment. */
export async function readChampion(
  objects: ObjectStore,
  name: string,
): Promise<{ champion: ChampionRecord; etag: string } | undefined> {
  const found = await readJson(objects, championKey(name), championRecord);
  return found === undefined ? undefined : { champion: found.value, etag: found.etag };
}

/**
 * Points champion.json at a version, if nobody else moved it since it was read. Promoting the version that
 * already serves changes nothing, so a repeated deployment is harmless.
 *
 * @throws DandelionError `lease-lost` when another deployment was first
 */
export async function promoteChampion(
  objects: ObjectStore,
  name: string,
  version: string,
): Promise<ChampionRecord> {
  const current = await readChampion(objects, name);
  if (current?.champion.version === version) return current.champion;
  const champion: ChampionRecord = {
    schemaVersion: 1,
    version,
    previous: current?.champion.version ?? null,
    deployedAt: new Date().toISOString(),
  };
  const { won } = await objects.putIf(championKey(name), jsonBytes(champion), {
    etag: current?.etag ?? null,
  });
  if (won) return champion;
  // The client library may have repeated a write that had already won: what counts is what stands there now.
  const standing = await readChampion(objects, name);
  if (standing?.champion.version === version) return standing.champion;
  throw new DandelionError(
    'lease-lost',
    `Another deployment of ${name} was first: ${standing?.champion.version ?? 'none'} serves now. Try again.`,
    { retryAfterMs: 1000 },
  );
}

/**
 * A JSON object of a known shape, undefined where there is none.
 *
 * @throws DandelionError `model-broken` when it has another shape
 */
export async function readJson<Schema extends z.ZodType>(
  objects: ObjectStore,
  key: string,
  schema: Schema,
): Promise<{ value: z.output<Schema>; etag: string } | undefined> {
  const found = await objects.get(key).catch((error: unknown) => {
    if (error instanceof DandelionError && error.code === 'object-missing') return undefined;
    throw error;
  });
  if (found === undefined) return undefined;
  try {
    return { value: schema.parse(JSON.parse(found.bytes.toString('utf8'))), etag: found.etag };
  } catch (cause) {
    throw new DandelionError('model-broken', `"${key}" ${whyUnreadable(found.bytes.toString('utf8'))}.`, {
      cause,
    });
  }
}

function whyUnreadable(text: string): string {
  const version = /"schemaVersion":\s*(\d+)/.exec(text)?.[1] ?? '1';
  return version === '1'
    ? 'cannot be read; it was written by another program'
    : `has schema version ${version}, this release reads 1: use the release that wrote it, or train again`;
}

/** A JSON document as files have it: indented, with a newline at the end. */
export function jsonBytes(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
}
