import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import type { LinearHead } from './serving-graph.ts';

export { applyHead, softmax } from './apply-head.ts';

const floats = z.base64().transform((text, context) => {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length % 4 === 0) {
    return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4));
  }
  context.addIssue({ code: 'custom', message: 'the length is no multiple of 4 bytes' });
  return z.NEVER;
});

const pathEntry = z.object({
  regularisation: z.number(),
  temperature: z.number(),
  logLoss: z.number(),
  logLossError: z.number(),
  accuracy: z.number(),
});

const crossValidationSchema = z.object({
  folds: z.number().int(),
  /** Of the strength chosen, on held-out photos, with temperature. */
  accuracy: z.number(),
  logLoss: z.number(),
  /** All that were compared: their best temperature, their log-loss with it and its error over the folds. */
  table: z.array(pathEntry),
});

const HEAD_FORMAT = 'dandelion-head-v1';
const formatSchema = z.object({ format: z.string() });

const headSchema = z.object({
  format: z.literal(HEAD_FORMAT),
  classes: z.array(z.string()).min(2),
  dimension: z.number().int().positive(),
  weights: floats,
  bias: floats,
  /** Heads of earlier versions have none. */
  directions: floats.optional(),
  temperature: z.number().positive(),
  regularisation: z.number().positive(),
  crossValidation: crossValidationSchema,
  history: z.array(z.object({ step: z.number().int(), loss: z.number() })),
  backend: z.enum(['tfjs-wasm', 'tfjs-node']),
});

/** A trained linear classifier on raw features: standardisation and temperature are folded into it. */
export interface TrainedHead extends LinearHead {
  /** Names of the classes, in the order of the columns. */
  classes: string[];
  /** Length of a feature vector. */
  dimension: number;
  /** By what the logits were divided to be calibrated. */
  temperature: number;
  /** The chosen factor of the L2 penalty. */
  regularisation: number;
  crossValidation: z.infer<typeof crossValidationSchema>;
  /** Loss of the final fit, with penalty, an iteration each. */
  history: { step: number; loss: number }[];
  backend: 'tfjs-wasm' | 'tfjs-node';
}

function base64(values: Float32Array): string {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeFloatLE(value, i * 4);
  return bytes.toString('base64');
}

/** The head as a JSON file (UTF-8); weights as base64 of little-endian 32-bit floats. */
export function serialiseHead(head: TrainedHead): Uint8Array {
  const { weights, bias, directions, ...rest } = head;
  const file = {
    format: HEAD_FORMAT,
    ...rest,
    weights: base64(weights),
    bias: base64(bias),
    ...(directions && { directions: base64(directions) }),
  };
  return Buffer.from(JSON.stringify(file));
}

/**
 * Reads a head file.
 *
 * @throws DandelionError `model-broken` when it is not one or its parts do not fit each other
 */
export function parseHead(bytes: Uint8Array): TrainedHead {
  const { format: _, ...head } = parseFile(bytes);
  const classes = head.classes.length;
  const { length: numbers = classes * head.dimension } = head.directions ?? {};
  if (
    head.bias.length !== classes ||
    [head.weights.length, numbers].some((n) => n !== classes * head.dimension)
  ) {
    throw new DandelionError('model-broken', 'The head has weights for other classes; train again.');
  }
  return head;
}

function parseFile(bytes: Uint8Array): z.output<typeof headSchema> {
  try {
    const file: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    const { data } = formatSchema.safeParse(file);
    if (data !== undefined && data.format !== HEAD_FORMAT) {
      throw new DandelionError(
        'model-broken',
        `The head file has the format ${data.format}, this release reads ${HEAD_FORMAT}: train again, or serve it with the release that wrote it.`,
      );
    }
    return headSchema.parse(file);
  } catch (cause) {
    if (cause instanceof DandelionError) throw cause;
    throw new DandelionError('model-broken', 'The head file cannot be read; train again.', { cause });
  }
}
