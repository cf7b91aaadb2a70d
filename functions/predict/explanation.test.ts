import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startFunction } from '../../shared/function/testing.ts';
import { saveModel } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { decodePhoto } from '../../shared/vision/decode.ts';
import { drawPhoto } from '../../shared/vision/drawn.ts';
import { openEngine } from '../../shared/vision/engine.ts';
import { learnFamiliarity } from '../../shared/vision/familiarity.ts';
import { normal, seededRandom } from '../../shared/vision/random.ts';
import { randomBackboneGraph } from '../../shared/vision/random-backbone.ts';
import { servingGraph } from '../../shared/vision/serving-graph.ts';
import * as predict from './handler.ts';

const plain = 'v0000000001';
const knowing = 'v0000000002';
const SIZE = 64;

let stores: TestStores;
const servers: Awaited<ReturnType<typeof startFunction>>[] = [];

/** A model on an untrained backbone that knows what the drawn photos look like to it. */
async function storeKnowingModel(base: Awaited<ReturnType<typeof storeDrawnModel>>): Promise<void> {
  const random = seededRandom(3);
  const backbone = randomBackboneGraph(3);
  const labels = Int32Array.from({ length: 40 }, (_, i) => i % 2);
  const engine = await openEngine(backbone);
  const photos = await Promise.all(
    [...labels].map(async (label, i) => {
      const drawn = await drawPhoto(label === 0 ? 'dandelion' : 'grass', i);
      return (await decodePhoto(drawn, { size: SIZE })).pixels;
    }),
  );
  const { features } = await engine.run(Buffer.concat(photos), photos.length);
  const dimension = engine.featureDimension;
  await engine.close();
  const none = { features: new Float32Array(), labels: new Int32Array() };
  const learned = learnFamiliarity({ features, labels }, none, { classes: 2, dimension }, 0.95);
  const weights = Float32Array.from({ length: dimension * 2 }, () => normal(random) / 4);
  const head = { weights, bias: Float32Array.of(0, 0), directions: learned.directions };
  await saveModel(
    stores.objects,
    {
      ...base,
      version: knowing,
      unknown: { threshold: learned.threshold, acceptance: learned.acceptance },
      extractor: { id: 'small', dimension, digest: null },
    },
    { 'serving.onnx': servingGraph(backbone, head) },
  );
}

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 24, grass: 24 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  await storeKnowingModel(await storeDrawnModel(stores, { name: 'plants', version: plain, dataset }));
});
afterAll(async () => {
  await Promise.all(servers.map((server) => server.close()));
  await stores?.drop();
});

// biome-ignore lint/suspicious/noExplicitAny: answers are looked into by path, and expectations say what they must be
type Answer = any;

async function serve(version: string): Promise<(photo: Buffer, query?: string) => Promise<Answer>> {
  const env = { ...stores.env, MODEL_NAME: 'plants', MODEL_VERSION: version };
  const server = await startFunction(predict, { name: 'predict', env });
  servers.push(server);
  return async (photo, query = '') => {
    const response = await fetch(`${server.url}/${query}`, {
      method: 'POST',
      body: new Uint8Array(photo),
      headers: { 'content-type': 'image/jpeg' },
    });
    return { status: response.status, ...((await response.json()) as object) };
  };
}

/** A photo of nothing that grows. */
function stripes(): Promise<Buffer> {
  const bars = Array.from(
    { length: 20 },
    (_, i) => `<rect x="${i * 20}" width="10" height="300" fill="#f0f"/>`,
  );
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="400" height="300">${bars.join('')}</svg>`;
  return sharp(Buffer.from(svg)).flatten({ background: '#00f' }).jpeg().toBuffer();
}

describe('a photo of none of the classes', () => {
  it('is unknown, and others are not', async () => {
    const ask = await serve(knowing);
    const other = await ask(await stripes());
    expect(other).toMatchObject({ status: 200, label: 'unknown' });
    expect(Object.keys(other.probabilities)).toEqual(['dandelion', 'grass']);
    const own = await ask(await drawPhoto('grass', 2));
    expect(['dandelion', 'grass']).toContain(own.label);
    expect(own.familiarity).toBeGreaterThan(other.familiarity);
  });

  it('gets the name of a class from a model that does not tell', async () => {
    const ask = await serve(plain);
    const answer = await ask(await stripes());
    expect(['dandelion', 'grass']).toContain(answer.label);
    expect(answer).not.toHaveProperty('familiarity');
  });
});

describe('an explanation', () => {
  it('says where the model looked, in numbers and as a picture, and changes nothing of the answer', async () => {
    const ask = await serve(knowing);
    const photo = await drawPhoto('dandelion', 5);
    const [bare, explained] = [await ask(photo), await ask(photo, '?explain=true')];
    expect(explained.probabilities.grass).toBeCloseTo(bare.probabilities.grass, 5);
    expect(bare).not.toHaveProperty('explanation');
    const { label, heat, overlay } = explained.explanation;
    const [[likeliest] = []] = Object.entries(explained.probabilities as Record<string, number>).sort(
      ([, a], [, b]) => b - a,
    );
    expect(label).toBe(likeliest);
    expect(Math.max(...heat.flat())).toBe(1);
    expect(Math.min(...heat.flat())).toBeGreaterThanOrEqual(0);
    const picture = await sharp(Buffer.from(overlay.split(',')[1], 'base64')).metadata();
    expect(picture).toMatchObject({ format: 'png', hasAlpha: true });
  });

  it('is refused by name by a model without a feature map, and left out where it was only wished for', async () => {
    const ask = await serve(plain);
    expect(await ask(await drawPhoto('grass', 2), '?explain=true')).toMatchObject({
      status: 422,
      code: 'explanation-unavailable',
    });
    const answer = await ask(await drawPhoto('grass', 2), '?explain=auto');
    expect(answer.status).toBe(200);
    expect(answer).not.toHaveProperty('explanation');
  });
});
