import { describe, expect, it } from 'vitest';
import {
  decodeOnnx,
  elementType,
  encodeOnnx,
  floatsOf,
  floatTensor,
  onnxModel,
  onnxNode,
  shapeOf,
  tensorValue,
} from './onnx.ts';

const model = onnxModel({
  name: 'example',
  node: [onnxNode('Conv', ['x', 'w'], 'y', { strides: [2, 2], pads: [0, 0, 1, 1], group: 3 })],
  initializer: [
    floatTensor('w', [2, 2], Float32Array.of(1, -2, 3.5, 1e-30)),
    floatTensor('s', [], Float32Array.of(7)),
  ],
  input: [tensorValue('x', elementType.uint8, ['N', 4, 4, 3])],
  output: [tensorValue('y', elementType.float, ['N', 2])],
});

describe('ONNX files', () => {
  it('come back as they were written', () => {
    const { graph, opsetImport, irVersion } = decodeOnnx(encodeOnnx(model));
    expect({ irVersion, opsetImport }).toEqual({ irVersion: 8, opsetImport: [{ domain: '', version: 13 }] });
    expect(graph.node[0]).toMatchObject({ opType: 'Conv', input: ['x', 'w'], output: ['y'] });
    expect(graph.node[0]?.attribute.map(({ name, i, ints }) => ({ name, i, ints }))).toEqual([
      { name: 'strides', i: undefined, ints: [2, 2] },
      { name: 'pads', i: undefined, ints: [0, 0, 1, 1] },
      { name: 'group', i: 3, ints: [] },
    ]);
    expect(graph.initializer.map(floatsOf)).toEqual([Float32Array.of(1, -2, 3.5, 1e-30), Float32Array.of(7)]);
    expect(graph.input.map(shapeOf)).toEqual([[undefined, 4, 4, 3]]);
  });

  it('are the same bytes for the same model', () => {
    expect(encodeOnnx(decodeOnnx(encodeOnnx(model)))).toEqual(encodeOnnx(model));
  });

  it('are read wherever they lie in memory', () => {
    const bytes = encodeOnnx(model);
    const shifted = new Uint8Array(bytes.length + 3);
    shifted.set(bytes, 3);
    const [weights] = decodeOnnx(shifted.subarray(3)).graph.initializer;
    expect(weights && floatsOf(weights)).toEqual(Float32Array.of(1, -2, 3.5, 1e-30));
  });

  it('that are none, or cut off, are named broken', () => {
    const bytes = encodeOnnx(model);
    for (const wrong of [Buffer.from('not a model'), new Uint8Array(), bytes.subarray(0, bytes.length - 9)]) {
      expect(() => decodeOnnx(wrong)).toThrow(expect.objectContaining({ code: 'model-broken' }));
    }
  });

  it('with constants that do not fit their shape are named broken', () => {
    const wrong = floatTensor('w', [3], Float32Array.of(1, 2));
    expect(() => floatsOf(wrong)).toThrow('Constant "w" of the graph is not 3 32-bit floats.');
  });
});
