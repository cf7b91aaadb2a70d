import type { EventData } from '../events.ts';
import { augmentPhoto } from '../vision/augment.ts';
import { CLASSICAL_EXTRACTOR, classicalFeatures } from '../vision/classical.ts';
import { serialiseHead, trainHead } from '../vision/classifier.ts';
import { decodePhoto } from '../vision/decode.ts';
import { type DrawnClass, drawPhoto } from '../vision/drawn.ts';
import { evaluateClassifier } from '../vision/metrics.ts';
import { inspectPhoto } from '../vision/photo-facts.ts';
import { measureStatistics } from '../vision/quality.ts';
import { assignSplits, type DatasetSummary, listCandidates, readDataset, storeDataset } from './datasets.ts';
import { readFeatures, storeFeatures } from './features.ts';
import { beginIngestion, imageKey, recordImages } from './images.ts';
import { type ModelRecord, saveModel } from './models.ts';
import type { TestStores } from './testing.ts';

/** Draws photos and stores them as ingest would; returns the data of its result. */
export async function storeDrawnPhotos(
  stores: TestStores,
  photos: {
    model: string;
    ingestion: string;
    classes: Partial<Record<DrawnClass, number>>;
    firstSeed?: number;
  },
): Promise<EventData<'dev.dandelion.images.ingested.v1'>> {
  const { model, ingestion, classes, firstSeed = 1 } = photos;
  await beginIngestion(stores.db, { id: ingestion, model, source: { kind: 'folder', uri: 'file:///drawn' } });
  for (const [label, count] of Object.entries(classes) as [DrawnClass, number][]) {
    for (let seed = firstSeed; seed < firstSeed + count; seed++) {
      const bytes = await drawPhoto(label, seed);
      await storePhoto(stores, { model, ingestion, label, source: `${label}/${seed}.jpg`, bytes });
    }
  }
  const images = Object.values(classes).reduce((sum, count) => sum + count, 0);
  const nothing = { reused: 0, duplicates: { exact: 0, near: 0 }, rejectedCount: 0, rejected: [] };
  return { model, ingestion, seed: 1, images, classes: { ...classes }, ...nothing };
}

/** Stores one photo as ingest would; returns its digest. */
export async function storePhoto(
  stores: TestStores,
  photo: { model: string; ingestion: string; label: string; source: string; bytes: Buffer },
): Promise<string> {
  const { model, ingestion, label, source, bytes } = photo;
  const facts = await inspectPhoto(bytes);
  await stores.objects.put(imageKey(facts.sha256), bytes);
  await recordImages(stores.db, { id: ingestion, model }, [{ source, label, ...facts }]);
  return facts.sha256;
}

/** Draws, embeds with classical features and splits: what preprocess leaves behind. */
export async function storeDrawnDataset(
  stores: TestStores,
  photos: Parameters<typeof storeDrawnPhotos>[1],
): Promise<EventData<'dev.dandelion.features.stored.v1'>> {
  const { model, ingestion } = await storeDrawnPhotos(stores, photos);
  const { db, objects } = stores;
  const candidates = await listCandidates(db, ingestion);
  for (const { sha256 } of candidates) {
    const photo = await decodePhoto((await objects.get(imageKey(sha256))).bytes);
    const { pixels, size } = photo;
    const vector = classicalFeatures(pixels, size);
    const augmentedVector = classicalFeatures(augmentPhoto(pixels, size), size);
    await storeFeatures(db, model, CLASSICAL_EXTRACTOR.id, [
      { sha256, vector, augmentedVector, statistics: { ...measureStatistics(photo) } },
    ]);
  }
  const { images } = assignSplits(model, candidates);
  const dataset = await storeDataset(db, { model, ingestion, seed: 1, images });
  return {
    model,
    ingestion,
    seed: 1,
    dataset,
    extractor: { ...CLASSICAL_EXTRACTOR, inputSize: 224 },
    rejectedCount: 0,
  };
}

/** The record of a model that nobody trained, of two classes. */
export function modelDraft(name: string, version: string): Omit<ModelRecord, 'files'> {
  const perClass = {
    a: { precision: 1, recall: 1, f1: 1, support: 5 },
    b: { precision: 1, recall: 1, f1: 1, support: 5 },
  };
  return {
    schemaVersion: 1,
    name,
    version,
    createdAt: '2026-01-01T00:00:00.000Z',
    classes: ['a', 'b'],
    dataset: {
      version: 'd0',
      images: 20,
      classes: { a: 10, b: 10 },
      splits: { train: 10, validation: 5, test: 5 },
    },
    extractor: { id: 'classical-v3', dimension: 3, digest: null },
    preprocessing: { size: 224, resize: 'cover', colour: 'rgb' },
    training: {
      runId: 'run',
      seed: 1,
      backend: 'wasm',
      regularisation: 1,
      temperature: 1,
      crossValidation: { accuracy: 1, logLoss: 0.1 },
      trainingMs: 5,
    },
    metrics: { images: 10, accuracy: 1, interval: [0.7, 1], rocAuc: 1, ece: 0, perClass },
    productVersion: 'test',
    gitCommit: null,
  };
}

/** Trains a head on a drawn dataset and stores the model: what train leaves behind. */
export async function storeDrawnModel(
  stores: TestStores,
  model: { name: string; version: string; dataset: DatasetSummary; spoil?: boolean },
): Promise<ModelRecord> {
  const { name, version, dataset, spoil = false } = model;
  const classes = Object.keys(dataset.classes);
  const { dimension } = CLASSICAL_EXTRACTOR;
  const matrix = await readFeatures(
    stores.db,
    { model: name, version: dataset.version, split: 'train' },
    CLASSICAL_EXTRACTOR,
  );
  // A spoilt model learns the wrong names, so that a gate has something to refuse.
  const labels = Int32Array.from(
    matrix.labels,
    (label) => (classes.indexOf(label) + (spoil ? 1 : 0)) % classes.length,
  );
  const { features, groups } = matrix;
  const head = await trainHead({ features, labels, groups, dimension, classes, seed: 1 });
  const certain = Float32Array.from({ length: labels.length * classes.length }, (_, index) =>
    labels[Math.floor(index / classes.length)] === index % classes.length ? 1 : 0,
  );
  const { regularisation, temperature, backend, crossValidation } = head;
  return saveModel(
    stores.objects,
    {
      schemaVersion: 1,
      name,
      version,
      createdAt: '2026-01-01T00:00:00.000Z',
      classes,
      dataset,
      extractor: { ...CLASSICAL_EXTRACTOR, digest: null },
      preprocessing: { size: 224, resize: 'cover', colour: 'rgb' },
      training: {
        ...{ runId: `${name}-${version}`, seed: 1, backend, regularisation, temperature, trainingMs: 1 },
        crossValidation,
      },
      metrics: evaluateClassifier(certain, labels, classes, { seed: 1 }).summary,
      productVersion: 'test',
      gitCommit: null,
    },
    { 'head.bin': serialiseHead(head) },
  );
}

/** Bytes of a photo of the test split, with its label. */
export async function readTestPhoto(
  stores: TestStores,
  model: string,
  version: string,
): Promise<{ label: string; bytes: Buffer }> {
  const [image] = await readDataset(stores.db, model, version, 'test');
  if (image === undefined) throw new Error(`dataset ${version} has no test photos`);
  return { label: image.label, bytes: (await stores.objects.get(imageKey(image.sha256))).bytes };
}
