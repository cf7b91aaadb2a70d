import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { DandelionError } from '../../shared/errors.ts';
import { serveJobs } from '../../shared/function/compute-worker.ts';
import type { ServingGraph } from '../../shared/stores/served-model.ts';
import { answerPhoto, type Engine, openEngine, type PhotoAnswer } from '../../shared/vision/engine.ts';

/** A model's graph, and the classes of its head. */
export interface OpenRequest {
  graph: ServingGraph;
  classes: readonly string[];
}

let opened: { engine: Engine; classes: readonly string[] } | undefined;
/** onnxruntime takes no memory that threads share. */
let input = new Uint8Array();
let answering: Promise<unknown> = Promise.resolve();

/** The graph's bytes (13 MB) would stay: what this thread does afterwards makes too little garbage for a collection. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  if (typeof collect === 'function') collect();
}

function answerCopy(pixels: Uint8Array): Promise<PhotoAnswer> {
  if (opened === undefined)
    throw new DandelionError('internal', 'Open a model before photos are classified.');
  if (input.length !== pixels.length) input = new Uint8Array(pixels.length);
  input.set(pixels);
  return answerPhoto(opened.engine, opened.classes, input);
}

const jobs = {
  /** Loads the model once, for all calls of `answer`. */
  async open({ graph, classes }: OpenRequest): Promise<void> {
    const { bytes, optimised } = graph;
    opened = { engine: await openEngine(bytes, { threads: 1, optimised }), classes };
    // An optimised graph stays, for the engine works on it.
    if (!optimised) setImmediate(collectGarbage);
  },

  /** What the model says of one photo, `size * size * 3` bytes; one after the other. */
  answer(pixels: Uint8Array): Promise<PhotoAnswer> {
    const answer = answering.then(() => answerCopy(pixels));
    answering = answer.catch(() => {});
    return answer;
  },
};
export type PredictJobs = typeof jobs;

serveJobs(jobs);
