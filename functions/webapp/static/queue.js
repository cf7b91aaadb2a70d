import { formatSize } from './format.js';
import { askPrediction, isPassing, isWaitingForModel, MAX_PHOTO_BYTES } from './prediction.js';

/**
 * @typedef {import('./prediction.js').Prediction} Prediction
 * @typedef {import('./prediction.js').Problem} Problem
 * @typedef {{ state: 'open' | 'wrong' | 'sending' | 'said' | 'failed', consent: boolean, sentence: string }} Opinion
 *   what a person says about the answer, as far as that is
 * @typedef {{ id: number, file: File, status: 'queued' | 'asking' | 'waiting' | 'answered' | 'refused',
 *   prediction?: Prediction, problem?: Problem, roundTripMs: number, tries: number, opinion?: Opinion }} Entry
 *   waiting: the server is there, a model or room for the photo is not yet
 */

const MAX_TRIES = 5;
const CHAMPION_POLL_MS = 3000;
/** The visit's history; older photos are forgotten so that a long visit does not hold every photo. */
const MAX_ENTRIES = 24;

/**
 * Photos in the order they came, asked about one at a time: the server is a laptop as often as a cluster.
 *
 * @param {string} predictUrl
 * @param {(entry: Entry) => void} onChange called after every change of an entry
 */
export function createQueue(predictUrl, onChange) {
  /** @type {Entry[]} the latest batch first */
  const entries = [];
  let working = false;
  let wake = () => {};

  /** @param {number} delayMs */
  function pause(delayMs) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delayMs);
      wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /**
   * @param {Entry} entry
   * @param {Partial<Entry>} change
   */
  function change(entry, change) {
    Object.assign(entry, change);
    onChange(entry);
  }

  /** @param {Entry} entry */
  async function ask(entry) {
    // A photo that waits stays "waiting" between tries, or the page would flicker every few seconds.
    if (entry.status === 'queued') change(entry, { status: 'asking' });
    const startedAtMs = performance.now();
    const outcome = await askPrediction(predictUrl, entry.file);
    const roundTripMs = performance.now() - startedAtMs;
    if (outcome.kind === 'answer') {
      change(entry, { status: 'answered', prediction: outcome.prediction, roundTripMs });
      return;
    }
    const { problem, retryAfterMs } = outcome;
    if (isWaitingForModel(problem)) {
      change(entry, { status: 'waiting', problem });
      await pause(Math.min(retryAfterMs ?? CHAMPION_POLL_MS, CHAMPION_POLL_MS));
      return;
    }
    entry.tries += 1;
    if (isPassing(problem) && entry.tries < MAX_TRIES) {
      change(entry, { status: 'waiting', problem });
      await pause(retryAfterMs ?? 500 * 2 ** entry.tries);
      return;
    }
    change(entry, { status: 'refused', problem });
  }

  async function work() {
    if (working) return;
    working = true;
    for (let entry = next(); entry !== undefined; entry = next()) await ask(entry);
    working = false;
  }

  /** The photo that has waited longest. */
  function next() {
    const open = entries.filter((entry) => entry.status === 'queued' || entry.status === 'waiting');
    return open.sort((a, b) => a.id - b.id)[0];
  }

  /** Forgets the oldest answers beyond the visit's history, never a photo that still waits. */
  function forget() {
    while (entries.length > MAX_ENTRIES && ['answered', 'refused'].includes(entries.at(-1)?.status ?? '')) {
      entries.pop();
    }
  }

  return {
    entries,

    /**
     * Adds photos that came together, in their order before all others; one that is too large is refused here,
     * before it is sent.
     *
     * @param {File[]} files
     * @returns {Entry[]}
     */
    add(files) {
      const added = files.map(createEntry);
      entries.unshift(...added);
      forget();
      for (const entry of added) onChange(entry);
      work();
      return added;
    },

    /** @param {Entry} entry a refused one */
    retry(entry) {
      change(entry, { status: 'queued', problem: undefined, tries: 0 });
      work();
    },

    /** Asks again at once, without waiting for the timer: a model has just been deployed. */
    hurry() {
      wake();
    },
  };
}

let nextId = 1;

/**
 * @param {File} file
 * @returns {Entry}
 */
function createEntry(file) {
  const entry = { id: nextId++, file, roundTripMs: 0, tries: 0 };
  if (file.size <= MAX_PHOTO_BYTES) return { ...entry, status: 'queued' };
  return { ...entry, status: 'refused', problem: tooLarge(file) };
}

/**
 * @param {File} file
 * @returns {Problem}
 */
function tooLarge(file) {
  return {
    code: 'image-too-large',
    title: 'This photo is too large',
    detail: `It is ${formatSize(file.size)}; a photo may be ${formatSize(MAX_PHOTO_BYTES)} at most. Nothing was sent.`,
    status: 413,
  };
}
