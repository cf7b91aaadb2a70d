import protobuf from 'protobufjs/light.js';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';

/**
 * The part of ONNX's message format that our graphs use (names and numbers: onnx/onnx.proto, IR version 8).
 * Fields that are not listed are skipped when reading.
 */
const descriptor = {
  nested: {
    ModelProto: {
      fields: {
        irVersion: { type: 'int64', id: 1 },
        producerName: { type: 'string', id: 2 },
        graph: { type: 'GraphProto', id: 7 },
        opsetImport: { rule: 'repeated', type: 'OperatorSetIdProto', id: 8 },
      },
    },
    OperatorSetIdProto: {
      fields: { domain: { type: 'string', id: 1 }, version: { type: 'int64', id: 2 } },
    },
    GraphProto: {
      fields: {
        node: { rule: 'repeated', type: 'NodeProto', id: 1 },
        name: { type: 'string', id: 2 },
        initializer: { rule: 'repeated', type: 'TensorProto', id: 5 },
        input: { rule: 'repeated', type: 'ValueInfoProto', id: 11 },
        output: { rule: 'repeated', type: 'ValueInfoProto', id: 12 },
      },
    },
    NodeProto: {
      fields: {
        input: { rule: 'repeated', type: 'string', id: 1 },
        output: { rule: 'repeated', type: 'string', id: 2 },
        name: { type: 'string', id: 3 },
        opType: { type: 'string', id: 4 },
        attribute: { rule: 'repeated', type: 'AttributeProto', id: 5 },
      },
    },
    AttributeProto: {
      fields: {
        name: { type: 'string', id: 1 },
        f: { type: 'float', id: 2 },
        i: { type: 'int64', id: 3 },
        ints: { rule: 'repeated', type: 'int64', id: 8 },
        type: { type: 'int32', id: 20 },
      },
    },
    TensorProto: {
      fields: {
        dims: { rule: 'repeated', type: 'int64', id: 1 },
        dataType: { type: 'int32', id: 2 },
        floatData: { rule: 'repeated', type: 'float', id: 4, options: { packed: true } },
        name: { type: 'string', id: 8 },
        rawData: { type: 'bytes', id: 9 },
      },
    },
    ValueInfoProto: {
      fields: { name: { type: 'string', id: 1 }, type: { type: 'TypeProto', id: 2 } },
    },
    TypeProto: {
      fields: { tensorType: { type: 'TensorTypeProto', id: 1 } },
    },
    TensorTypeProto: {
      fields: { elemType: { type: 'int32', id: 1 }, shape: { type: 'TensorShapeProto', id: 2 } },
    },
    TensorShapeProto: {
      fields: { dim: { rule: 'repeated', type: 'DimensionProto', id: 1 } },
    },
    DimensionProto: {
      fields: { dimValue: { type: 'int64', id: 1 }, dimParam: { type: 'string', id: 2 } },
    },
  },
};

/** Element types of tensors, by ONNX's numbers. */
export const elementType = { float: 1, uint8: 2, int8: 3, int32: 6, float16: 10 } as const;

const attributeType = { float: 1, int: 2, ints: 7 } as const;

const attributeSchema = z.object({
  name: z.string(),
  f: z.number().optional(),
  i: z.number().optional(),
  ints: z.array(z.number()).default([]),
  type: z.number().optional(),
});

const nodeSchema = z.object({
  input: z.array(z.string()).default([]),
  output: z.array(z.string()).default([]),
  name: z.string().default(''),
  opType: z.string(),
  attribute: z.array(attributeSchema).default([]),
});
export type OnnxNode = z.infer<typeof nodeSchema>;

const tensorSchema = z.object({
  dims: z.array(z.number().int().nonnegative()).default([]),
  dataType: z.number(),
  floatData: z.array(z.number()).default([]),
  name: z.string(),
  rawData: z.instanceof<typeof Uint8Array<ArrayBufferLike>>(Uint8Array).default(new Uint8Array()),
});
export type OnnxTensor = z.infer<typeof tensorSchema>;

const valueSchema = z.object({
  name: z.string(),
  type: z.object({
    tensorType: z.object({
      elemType: z.number(),
      shape: z
        .object({
          dim: z
            .array(z.object({ dimValue: z.number().optional(), dimParam: z.string().optional() }))
            .default([]),
        })
        .default({ dim: [] }),
    }),
  }),
});
export type OnnxValue = z.infer<typeof valueSchema>;

const graphSchema = z.object({
  node: z.array(nodeSchema).default([]),
  name: z.string().default(''),
  initializer: z.array(tensorSchema).default([]),
  input: z.array(valueSchema).default([]),
  output: z.array(valueSchema).default([]),
});
export type OnnxGraph = z.infer<typeof graphSchema>;

const modelSchema = z.object({
  irVersion: z.number(),
  producerName: z.string().default(''),
  graph: graphSchema,
  opsetImport: z.array(z.object({ domain: z.string().default(''), version: z.number() })).default([]),
});
export type OnnxModel = z.infer<typeof modelSchema>;

const modelType = protobuf.Root.fromJSON(descriptor).lookupType('ModelProto');

/** Wraps a graph as a model of IR version 8 and operator set 13. */
export function onnxModel(graph: OnnxGraph): OnnxModel {
  return { irVersion: 8, producerName: 'dandelion', graph, opsetImport: [{ domain: '', version: 13 }] };
}

/** Writes an ONNX file. The same model always gives the same bytes. */
export function encodeOnnx(model: OnnxModel): Uint8Array {
  return modelType.encode(modelType.fromObject(model)).finish();
}

/**
 * Reads an ONNX file; raw tensors are views of `bytes`.
 *
 * @throws DandelionError `model-broken` when the bytes are not an ONNX model
 */
export function decodeOnnx(bytes: Uint8Array): OnnxModel {
  try {
    const message = modelType.decode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    return modelSchema.parse(modelType.toObject(message, { longs: Number }));
  } catch (cause) {
    throw new DandelionError('model-broken', 'The graph is not an ONNX model; store it again.', { cause });
  }
}

/** A node with one output, named after it; attributes are whole numbers or lists of them. */
export function onnxNode(
  opType: string,
  input: string[],
  output: string,
  attributes: Record<string, number | number[]> = {},
): OnnxNode {
  const attribute = Object.entries(attributes).map(([name, value]) =>
    Array.isArray(value)
      ? { name, ints: value, type: attributeType.ints }
      : { name, i: value, ints: [], type: attributeType.int },
  );
  return { opType, name: output, input, output: [output], attribute };
}

/** A constant of the graph, float32, row-major. */
export function floatTensor(name: string, dims: number[], data: Float32Array): OnnxTensor {
  return constantTensor(name, dims, data, elementType.float);
}

/** A constant of the graph in half the bytes, row-major; a Cast makes 32-bit floats of it. */
export function halfTensor(name: string, dims: number[], data: Float16Array): OnnxTensor {
  return constantTensor(name, dims, data, elementType.float16);
}

/** A constant of the graph in whole numbers, row-major. */
export function wholeTensor(
  name: string,
  dims: number[],
  data: Uint8Array | Int8Array | Int32Array,
): OnnxTensor {
  if (data instanceof Uint8Array) return constantTensor(name, dims, data, elementType.uint8);
  return constantTensor(name, dims, data, data instanceof Int8Array ? elementType.int8 : elementType.int32);
}

function constantTensor(
  name: string,
  dims: number[],
  { buffer, byteOffset, byteLength }: ArrayBufferView,
  dataType: number,
): OnnxTensor {
  return { name, dims, dataType, floatData: [], rawData: new Uint8Array(buffer, byteOffset, byteLength) };
}

/** An input or output; a string stands for a length that is free. */
export function tensorValue(name: string, elemType: number, shape: (number | string)[]): OnnxValue {
  const dim = shape.map((length) =>
    typeof length === 'number' ? { dimValue: length } : { dimParam: length },
  );
  return { name, type: { tensorType: { elemType, shape: { dim } } } };
}

/** Lengths of a value, `undefined` where free. */
export function shapeOf(value: OnnxValue): (number | undefined)[] {
  return value.type.tensorType.shape.dim.map(({ dimValue }) => dimValue);
}

/**
 * The numbers of a float32 constant.
 *
 * @throws DandelionError `model-broken` for other element types or a length that does not fit the shape
 */
export function floatsOf(tensor: OnnxTensor): Float32Array {
  const { name, dataType, floatData, rawData } = tensor;
  const size = elementsOf(tensor);
  // Copied: a view into the file may start at an address that is no multiple of four.
  const floats =
    rawData.length > 0
      ? new Float32Array(new Uint8Array(rawData).buffer, 0, Math.floor(rawData.length / 4))
      : Float32Array.from(floatData);
  if (dataType !== elementType.float || floats.length !== size) {
    throw new DandelionError('model-broken', `Constant "${name}" of the graph is not ${size} 32-bit floats.`);
  }
  return floats;
}

/**
 * The numbers of a float16 constant.
 *
 * @throws DandelionError `model-broken` for other element types or a length that does not fit the shape
 */
export function halvesOf(tensor: OnnxTensor): Float16Array {
  const { name, dataType, rawData } = tensor;
  const size = elementsOf(tensor);
  if (dataType !== elementType.float16 || rawData.length !== size * Float16Array.BYTES_PER_ELEMENT) {
    throw new DandelionError('model-broken', `Constant "${name}" of the graph is not ${size} 16-bit floats.`);
  }
  return new Float16Array(new Uint8Array(rawData).buffer);
}

const wholeArrays = {
  [elementType.uint8]: Uint8Array,
  [elementType.int8]: Int8Array,
  [elementType.int32]: Int32Array,
} as const;

/**
 * The numbers of a constant of bytes or 32-bit whole numbers.
 *
 * @throws DandelionError `model-broken` for other element types or a length that does not fit the shape
 */
export function wholesOf(tensor: OnnxTensor): Uint8Array | Int8Array | Int32Array {
  const { name, dataType, rawData } = tensor;
  const array = Object.entries(wholeArrays).find(([type]) => Number(type) === dataType)?.[1];
  const size = elementsOf(tensor);
  if (array === undefined || rawData.length !== size * array.BYTES_PER_ELEMENT) {
    throw new DandelionError('model-broken', `Constant "${name}" of the graph is not ${size} whole numbers.`);
  }
  return new array(new Uint8Array(rawData).buffer);
}

function elementsOf({ dims }: OnnxTensor): number {
  return dims.reduce((product, length) => product * length, 1);
}
