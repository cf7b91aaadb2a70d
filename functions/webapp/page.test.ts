import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

/** The page's modules are plain JavaScript that browsers load; those without a document run here as they are. */
const load = (name: string) => import(join(import.meta.dirname, 'static', name));
const { formatDuration, formatShare, formatSize } = await load('format.js');
const { isPassing, isWaitingForModel, readOutcome } = await load('prediction.js');
const { feedbackRequest, readReceipt } = await load('opinion.js');
const { describePipeline, describeStep, progressText, readPipeline, shareOf } =
  await load('pipeline-state.js');

const waiting = {
  status: 'waiting',
  progress: null,
  startedAt: null,
  finishedAt: null,
  reused: false,
  problem: null,
};
const done = {
  ...waiting,
  status: 'succeeded',
  startedAt: '2026-01-01T10:00:00.000Z',
  finishedAt: '2026-01-01T10:00:04.200Z',
};
const names = ['ingest', 'preprocess', 'train', 'evaluate', 'deploy'];

/** A pipeline whose first steps are the given ones; the others wait. */
function pipeline(...steps: object[]) {
  const all = names.map((name, index) => ({ ...waiting, ...steps[index], function: name }));
  return readPipeline({ steps: all, champion: null });
}

describe('an answer of the predict function', () => {
  test('lists all classes, most likely first', () => {
    const outcome = readOutcome(200, null, {
      label: 'grass',
      probabilities: { dandelion: 0.1, grass: 0.7, daisy: 0.2 },
      model: { name: 'dandelion', version: 'v0123456789' },
      latencyMs: 12.5,
    });
    expect(outcome).toMatchObject({ kind: 'answer', prediction: { label: 'grass', latencyMs: 12.5 } });
    expect(outcome.prediction.classes.map(({ name }: { name: string }) => name)).toEqual([
      'grass',
      'daisy',
      'dandelion',
    ]);
  });

  test('that is a problem keeps its title, its detail and when to try again', () => {
    const outcome = readOutcome(503, '5', { code: 'no-champion', title: 'No model', detail: 'Train one.' });
    expect(outcome).toEqual({
      kind: 'problem',
      problem: { code: 'no-champion', title: 'No model', detail: 'Train one.', status: 503 },
      retryAfterMs: 5000,
    });
    expect(isWaitingForModel(outcome.problem)).toBe(true);
  });

  test('that is no JSON, as proxies send, still becomes a problem that can be shown', () => {
    const { problem } = readOutcome(502, null, undefined);
    expect(problem).toMatchObject({ code: 'http-502', status: 502 });
    expect(isPassing(problem)).toBe(true);
    expect(readOutcome(200, null, '<html>').problem.code).toBe('bad-answer');
    expect(isPassing(readOutcome(422, null, { code: 'not-an-image' }).problem)).toBe(false);
  });
});

describe('an opinion on an answer', () => {
  const prediction = {
    ...{ id: 'p1', label: 'grass', model: { name: 'plants', version: 'v0123456789' }, latencyMs: 1 },
    classes: ['grass', 'dandelion'].map((name) => ({ name, share: 0.5 })),
  };
  const said = { prediction: 'p1', model: prediction.model, predicted: 'grass', consent: false };

  test('goes as JSON, with a label only where the model was wrong', () => {
    const bodyOf = (label: string | null, of = prediction) => JSON.parse(feedbackRequest(of, label).body);
    expect(bodyOf('grass')).toEqual({ ...said, correct: true });
    expect(bodyOf('dandelion')).toEqual({ ...said, correct: false, label: 'dandelion' });
    expect(bodyOf(null)).toEqual({ ...said, correct: false, label: null });
    expect(bodyOf(null, { ...prediction, label: 'unknown' })).toMatchObject({ correct: true });
  });

  test('takes the photo along only with consent', () => {
    const { body, headers } = feedbackRequest(prediction, 'dandelion', new Blob(['photo']));
    expect(JSON.parse(body.get('feedback'))).toMatchObject({ consent: true, label: 'dandelion' });
    expect(body.get('photo').size).toBe(5);
    expect(headers).toEqual({});
  });

  test('is answered in words, whatever came back', () => {
    expect(readReceipt(true, { status: 'waiting' }, true).sentence).toContain('deleted if it is not used');
    expect(readReceipt(true, { status: 'accepted' }, false).sentence).toContain('reviewed already');
    expect(readReceipt(false, undefined, false)).toEqual({
      ok: false,
      sentence: 'Not sent. The server did not take it.',
    });
    expect(readReceipt(false, { detail: 'Too many.' }, false).sentence).toBe('Not sent. Too many.');
  });
});

describe('the state of the pipeline', () => {
  test('is not read from anything else', () => {
    for (const body of [undefined, null, {}, [], { steps: [{ function: 'train', status: 'flying' }] }]) {
      expect(readPipeline(body)).toBeUndefined();
    }
  });

  test('is told in a few words', () => {
    expect(describePipeline(pipeline())).toEqual({ mood: 'idle', text: 'Not started yet' });
    expect(describePipeline(pipeline(done, { status: 'running' }))).toEqual({
      mood: 'active',
      text: 'Step 2 of 5',
    });
    expect(describePipeline(pipeline(done))).toEqual({ mood: 'active', text: 'Next: preprocess' });
    expect(describePipeline(pipeline(done, { status: 'failed' }))).toEqual({
      mood: 'failed',
      text: 'Stopped at preprocess',
    });
    expect(describePipeline(pipeline(done, done, done, done, done))).toEqual({
      mood: 'done',
      text: 'Done in 21 s',
    });
  });

  test('shows of each step how far it is, and "100%" only by being done', () => {
    const running = (progress: object | null) => ({
      ...waiting,
      function: 'train',
      status: 'running',
      progress,
    });
    expect(describeStep(running({ done: 2999, total: 3000, note: '' }))).toBe('99%');
    expect(describeStep(running(null))).toBe('working');
    expect(shareOf(running({ done: 5, total: 0, note: 'x' }))).toBeUndefined();
    expect(describeStep(done)).toBe('4.2 s');
    expect(describeStep({ ...done, reused: true })).toBe('reused');
    expect(progressText(running({ done: 1200, total: 3000, note: 'photos measured' }))).toBe(
      'photos measured: 1,200 of 3,000',
    );
  });
});

test('a share is never rounded to certainty', () => {
  expect([1, 0.9999, 0.982, 0.5, 0.0002, 0].map(formatShare)).toEqual([
    '100%',
    '> 99.9%',
    '98.2%',
    '50%',
    '< 0.1%',
    '0%',
  ]);
});

test('durations and sizes are given in the unit people would use', () => {
  expect([0.4, 13.4, 4200, 38_000, 133_000, 120_000].map(formatDuration)).toEqual([
    '1 ms',
    '13 ms',
    '4.2 s',
    '38 s',
    '2 min 13 s',
    '2 min',
  ]);
  expect([20, 14_300, 24_300_000].map(formatSize)).toEqual(['1 kB', '14 kB', '24.3 MB']);
});
