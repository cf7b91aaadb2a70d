import type { Tensor2D } from '@tensorflow/tfjs-core';
import type { TensorFlowCore } from './tensorflow.ts';

/** Training samples as rows, standardised, held as tensors; the two products that a linear model needs. */
export interface DesignMatrix {
  readonly rows: number;
  readonly dimension: number;
  /** What was taken off each feature, then what it was divided by. */
  readonly mean: Float64Array;
  readonly deviation: Float64Array;
  /** rows x columns = matrix times `weights` (row-major [dimension, columns]). */
  multiply(weights: Float32Array, columns: number): Float32Array;
  /** dimension x columns = matrix transposed times `residuals` (row-major [rows, columns]). */
  multiplyTransposed(residuals: Float32Array, columns: number): Float32Array;
  /** Mean and standard deviation of each standardised feature over the rows that `use` marks with 1. */
  momentsOf(use: Uint8Array): { mean: Float64Array; deviation: Float64Array };
  dispose(): void;
}

/** Rows a tensor: WebAssembly's memory is asked for in pieces of at most this size. */
const ROWS_A_TENSOR = 8192;

/** Beyond this, tensors are made anew for each product: WebAssembly addresses 4 GiB at most. */
const RESIDENT_BYTES = 2 ** 29;

interface Block {
  start: number;
  rows: number;
  /** The rows and their transpose: the WebAssembly backend is slow where it has to transpose itself. */
  tensors(): { matrix: Tensor2D; transposed: Tensor2D };
}

/**
 * Standardises features and uploads them.
 *
 * @param parts row-major [rows, dimension] each, stacked in order
 */
export function designMatrix(
  tf: TensorFlowCore,
  parts: readonly Float32Array[],
  dimension: number,
): DesignMatrix {
  const rows = parts.reduce((sum, part) => sum + part.length / dimension, 0);
  const { mean, deviation } = moments(parts, dimension, () => true);
  const standardised = standardise(parts, { mean, deviation });
  const resident = rows * dimension * 8 <= RESIDENT_BYTES;
  const kept: Tensor2D[] = [];
  const upload = (start: number, count: number) => {
    const values = standardised.subarray(start * dimension, (start + count) * dimension);
    const matrix = tf.tensor2d(values, [count, dimension]);
    return { matrix, transposed: tf.tidy(() => tf.transpose(matrix)) };
  };
  const blocks: Block[] = [];
  for (let start = 0; start < rows; start += ROWS_A_TENSOR) {
    const count = Math.min(ROWS_A_TENSOR, rows - start);
    const uploaded = resident ? upload(start, count) : undefined;
    if (uploaded) kept.push(uploaded.matrix, uploaded.transposed);
    blocks.push({ start, rows: count, tensors: () => uploaded ?? upload(start, count) });
  }

  return {
    rows,
    dimension,
    mean,
    deviation,
    multiply(weights, columns) {
      const result = new Float32Array(rows * columns);
      for (const block of blocks) {
        const product = tf.tidy(() => {
          const right = tf.tensor2d(weights, [dimension, columns]);
          return tf.matMul(block.tensors().matrix, right).dataSync<'float32'>();
        });
        result.set(product, block.start * columns);
      }
      return result;
    },
    multiplyTransposed(residuals, columns) {
      const result = new Float32Array(dimension * columns);
      for (const block of blocks) {
        const part = residuals.subarray(block.start * columns, (block.start + block.rows) * columns);
        const product = tf.tidy(() => {
          const right = tf.tensor2d(part, [block.rows, columns]);
          return tf.matMul(block.tensors().transposed, right).dataSync<'float32'>();
        });
        for (let i = 0; i < result.length; i += 1) result[i] = (result[i] ?? 0) + (product[i] ?? 0);
      }
      return result;
    },
    momentsOf: (use) => moments([standardised], dimension, (row) => use[row] === 1),
    dispose: () => tf.dispose(kept),
  };
}

/** Mean and standard deviation of each feature, in double precision. A constant feature keeps its scale. */
function moments(
  parts: readonly Float32Array[],
  dimension: number,
  use: (row: number) => boolean,
): { mean: Float64Array; deviation: Float64Array } {
  const sum = new Float64Array(dimension);
  const squares = new Float64Array(dimension);
  let row = 0;
  let used = 0;
  for (const part of parts) {
    for (let start = 0; start < part.length; start += dimension, row += 1) {
      if (!use(row)) continue;
      used += 1;
      for (let feature = 0; feature < dimension; feature += 1) {
        const value = part[start + feature] ?? 0;
        sum[feature] = (sum[feature] ?? 0) + value;
        squares[feature] = (squares[feature] ?? 0) + value * value;
      }
    }
  }
  const mean = sum.map((total) => total / Math.max(1, used));
  const deviation = squares.map((total, feature) => {
    const variance = total / Math.max(1, used) - (mean[feature] ?? 0) ** 2;
    return variance > 1e-12 ? Math.sqrt(variance) : 1;
  });
  return { mean, deviation };
}

function standardise(
  parts: readonly Float32Array[],
  { mean, deviation }: { mean: Float64Array; deviation: Float64Array },
): Float32Array {
  const result = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 1) {
      const feature = i % mean.length;
      result[offset + i] = ((part[i] ?? 0) - (mean[feature] ?? 0)) / (deviation[feature] ?? 1);
    }
    offset += part.length;
  }
  return result;
}
