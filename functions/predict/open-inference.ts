import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { DandelionError, toDandelionError } from '../../shared/errors.ts';
import type { FunctionContext, FunctionEvent } from '../../shared/function/types.ts';
import { schemaFaults } from '../../shared/schema-faults.ts';
import { classifyPhoto, labelOf } from './classify.ts';
import type { PredictSettings } from './config.ts';
import type { LoadedModel, ModelRegistry } from './models.ts';
import type { NotedRequest } from './prediction-log.ts';

/** A tensor of the protocol; `data` may be nested or flat, row-major. */
const inputTensor = z.object({
  name: z.string(),
  shape: z.array(z.number().int().positive()).min(1),
  datatype: z.string(),
  data: z.array(z.unknown()),
});

const inferRequest = z.object({
  id: z.string().optional(),
  inputs: z.array(inputTensor).length(1, 'give one input tensor'),
  outputs: z.array(z.object({ name: z.string() })).optional(),
});
type InferRequest = z.infer<typeof inferRequest>;

interface Server {
  models: ModelRegistry;
  settings: PredictSettings;
  noted: NotedRequest;
}

const outputNames = new Set(['label', 'probabilities']);
const modelPath = /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?(\/ready|\/infer)?$/;

/**
 * Answers the paths of the Open Inference Protocol v2
 * (https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md), versioned
 * ones included. Problems carry the protocol's `error` member as well.
 */
export async function answerInferenceProtocol(
  event: FunctionEvent,
  context: FunctionContext,
  server: Server,
): Promise<unknown> {
  try {
    return await route(event, context, server);
  } catch (thrown) {
    const error = toDandelionError(thrown);
    if (error.code === 'internal') throw error;
    throw new DandelionError(error.code, error.message, {
      cause: thrown,
      retryAfterMs: error.retryAfterMs,
      extra: { ...error.extra, error: error.message },
    });
  }
}

async function route(event: FunctionEvent, context: FunctionContext, server: Server): Promise<unknown> {
  const { method, path } = event;
  const { MODEL_NAME: ownName } = server.settings;
  const version = server.models.servingVersion();
  if (method === 'GET' && path === '/v2') return describeServer();
  if (method === 'GET' && path === '/v2/health/live') return { live: true };
  if (method === 'GET' && path === '/v2/health/ready') {
    context.status(version === undefined ? 503 : 200);
    return { ready: version !== undefined };
  }
  if (method === 'POST' && path === '/v2/repository/index') {
    return version === undefined ? [] : [{ name: ownName, version, state: 'READY', reason: '' }];
  }
  const [, name, wanted, action] = modelPath.exec(path) ?? [];
  if (name === undefined) throw new DandelionError('not-found', `Open Inference Protocol v2 has no ${path}.`);
  if (name !== ownName) throw new DandelionError('model-unknown', `This server has ${ownName}, not ${name}.`);
  if (action === '/infer') {
    if (method !== 'POST')
      throw new DandelionError('method-not-allowed', `POST an inference request to ${path}.`);
    return server.models.withModel(wanted, (model) => infer(model, event.body, server));
  }
  if (method !== 'GET') throw new DandelionError('method-not-allowed', `GET ${path}.`);
  return server.models.withModel(wanted, async ({ record, ...model }) =>
    action === '/ready' ? { name, ready: true } : describeModel({ record, ...model }),
  );
}

function describeServer() {
  return {
    name: 'dandelion',
    version: process.env.PRODUCT_VERSION ?? 'source',
    extensions: ['model_repository'],
  };
}

function describeModel({ record, engineName, inputSize }: LoadedModel) {
  return {
    name: record.name,
    versions: [record.version],
    platform: engineName,
    inputs: [{ name: 'image', datatype: 'BYTES', shape: [-1] }],
    outputs: [
      { name: 'label', datatype: 'BYTES', shape: [-1] },
      { name: 'probabilities', datatype: 'FP32', shape: [-1, record.classes.length] },
    ],
    parameters: {
      classes: record.classes,
      image: `BYTES: base64 of encoded photos; or UINT8 [-1, ${inputSize}, ${inputSize}, 3]: RGB, row-major`,
    },
  };
}

async function infer(model: LoadedModel, body: unknown, server: Server) {
  const parsed = inferRequest.safeParse(body);
  if (!parsed.success) {
    const faults = schemaFaults(parsed.error, 'body');
    throw new DandelionError('bad-data', `The inference request does not fit the protocol: ${faults}.`);
  }
  const request = parsed.data;
  const wanted = request.outputs?.map((output) => output.name);
  const unknown = wanted?.find((name) => !outputNames.has(name));
  if (unknown !== undefined) {
    throw new DandelionError('bad-data', `There is no output "${unknown}"; ask for label or probabilities.`);
  }
  const rows = await classifyTensor(model, request, server);
  const { name, version, classes } = model.record;
  const labels = rows.map(({ label }) => label);
  const scores = rows.flatMap((row) => row.scores);
  const outputs = [
    { name: 'label', datatype: 'BYTES', shape: [rows.length], data: labels },
    { name: 'probabilities', datatype: 'FP32', shape: [rows.length, classes.length], data: scores },
  ];
  return {
    ...(request.id === undefined ? {} : { id: request.id }),
    model_name: name,
    model_version: version,
    outputs: wanted === undefined ? outputs : outputs.filter((output) => wanted.includes(output.name)),
  };
}

/** What is said of one photo of the input tensor. */
interface Row {
  label: string;
  scores: number[];
}

/** One row for each photo of the input tensor. */
async function classifyTensor(
  model: LoadedModel,
  request: InferRequest,
  { settings, noted }: Server,
): Promise<Row[]> {
  const [input] = request.inputs;
  const photos = input?.shape[0] ?? 0;
  if (photos > settings.PREDICT_MAX_PHOTOS) {
    throw new DandelionError(
      'bad-data',
      `The tensor has ${photos} photos; ${settings.PREDICT_MAX_PHOTOS} is the most.`,
    );
  }
  if (input?.datatype === 'BYTES') return classifyEncoded(model, input.data, photos, noted);
  if (input?.datatype === 'UINT8') return classifyPixels(model, input, photos, noted);
  throw new DandelionError(
    'bad-data',
    `Datatype ${input?.datatype ?? 'unknown'} is not taken; send BYTES or UINT8.`,
  );
}

async function classifyEncoded(
  model: LoadedModel,
  data: readonly unknown[],
  photos: number,
  noted: NotedRequest,
): Promise<Row[]> {
  const texts = z.array(z.base64()).length(photos).safeParse(data);
  if (!texts.success) {
    throw new DandelionError(
      'bad-data',
      `A BYTES tensor of shape [${photos}] has ${photos} base64 strings as data.`,
    );
  }
  const predictions = await Promise.all(
    texts.data.map((text) => classifyPhoto(model, Buffer.from(text, 'base64'), noted)),
  );
  // By name: an object keeps classes that are called by numbers in an order of its own.
  const { classes } = model.record;
  return predictions.map(({ label, probabilities }) => ({
    label,
    scores: classes.map((name) => probabilities[name] ?? 0),
  }));
}

async function classifyPixels(
  model: LoadedModel,
  input: InferRequest['inputs'][number],
  photos: number,
  noted: NotedRequest,
): Promise<Row[]> {
  const size = model.inputSize;
  const shape = [photos, size, size, 3];
  const values = input.data.flat(Number.POSITIVE_INFINITY);
  const fits = input.shape.join() === shape.join() && values.length === photos * size * size * 3;
  if (
    !fits ||
    !values.every((value) => Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 255)
  ) {
    throw new DandelionError(
      'bad-data',
      `A UINT8 tensor has shape [n, ${size}, ${size}, 3] and whole numbers 0 to 255.`,
    );
  }
  const pixels = Uint8Array.from(values, Number);
  const length = pixels.length / photos;
  const rows = Array.from({ length: photos }, async (_, photo) => {
    const square = pixels.subarray(photo * length, (photo + 1) * length);
    const answering = model.answer(square);
    const input = noted.measure({ pixels: square, size, width: size, height: size });
    const answer = await answering;
    noted.answered(randomUUID(), model.record, answer, input);
    return { label: labelOf(model.record, answer), scores: [...answer.scores] };
  });
  return Promise.all(rows);
}
