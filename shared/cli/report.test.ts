import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { DandelionError } from '../errors.ts';
import { createEvent, type MetricsSummary } from '../events.ts';
import {
  type ChainLink,
  type PipelineState,
  type PipelineStep,
  pipelineFunctions,
} from '../local/pipeline.ts';
import type { ModelRecord } from '../stores/models.ts';
import type { StepRun } from '../stores/steps.ts';
import { createProgressView, formatDuration } from './progress.ts';
import { buildReport, describeReport, exitCodeOf, failureOf, writeReport } from './report.ts';

const metrics: MetricsSummary = {
  images: 60,
  accuracy: 0.95,
  interval: [0.86, 0.98],
  rocAuc: 0.99,
  ece: 0.02,
  perClass: { daisy: { precision: 1, recall: 0.9, f1: 0.947, support: 30 } },
};
const dataset = {
  version: 'd1',
  images: 400,
  classes: { daisy: 200, grass: 200 },
  splits: { train: 280, validation: 60, test: 60 },
};

function step(name: PipelineStep['function'], changes: Partial<PipelineStep> = {}): PipelineStep {
  const times = { startedAt: '2026-01-01T00:00:00.000Z', finishedAt: '2026-01-01T00:00:02.500Z' };
  const rest = { attempt: 1, progress: null, reused: false, problem: null };
  return { function: name, status: 'succeeded', ...times, ...rest, ...changes };
}

function stateOf(...steps: PipelineStep[]): PipelineState {
  return { request: null, steps, metrics: null, champion: null };
}

function link(name: ChainLink['function'], result: StepRun['result']): ChainLink {
  return { function: name, event: undefined, run: { result } as StepRun };
}

const chain: ChainLink[] = [
  link(
    'ingest',
    createEvent({
      type: 'dev.dandelion.images.ingested.v1',
      source: '/ingest',
      id: '1',
      data: {
        model: 'meadow',
        ingestion: 'i',
        seed: 1,
        images: 400,
        classes: dataset.classes,
        reused: 0,
        duplicates: { exact: 0, near: 0 },
        rejectedCount: 0,
        rejected: [],
      },
    }),
  ),
  link(
    'preprocess',
    createEvent({
      type: 'dev.dandelion.features.stored.v1',
      source: '/preprocess',
      id: '2',
      data: {
        model: 'meadow',
        ingestion: 'i',
        seed: 1,
        dataset,
        extractor: { id: 'e', dimension: 8, inputSize: 224 },
        rejectedCount: 0,
      },
    }),
  ),
  link(
    'evaluate',
    createEvent({
      type: 'dev.dandelion.model.rejected.v1',
      source: '/evaluate',
      id: '3',
      data: {
        model: { name: 'meadow', version: 'v0123456789' },
        dataset,
        checks: [],
        metrics,
        champion: null,
      },
    }),
  ),
];

describe('the report', () => {
  test('tells dataset, metrics and times of a run', () => {
    const rejected = [{ source: 'a.txt', reason: 'not an image' }];
    const state = stateOf(step('ingest', { reused: true }), step('train'));
    const report = buildReport({ chain, rejected, state });
    expect(report).toMatchObject({
      schemaVersion: 1,
      ok: true,
      dataset: { version: 'd1', images: 400, rejected: [{ source: 'a.txt', reason: 'not an image' }] },
      splits: { train: 280, validation: 60, test: 60 },
      metrics,
      stepsMs: { ingest: 2500, train: 2500 },
      reusedSteps: ['ingest'],
      champion: null,
      prediction: null,
    });
    const text = describeReport(report);
    expect(text).toContain('accuracy 95.0 % (95 % interval 86.0 % to 98.0 %)');
    expect(text).toContain('a.txt: not an image');
    expect(text).toContain('ingest done before, train 2.5 s');
  });

  test('names photos that were left out by their reasons, so that a whole class is seen among many others', () => {
    const of = (folder: string, count: number, reason: (index: number) => string) =>
      Array.from({ length: count }, (_, index) => ({
        source: `${folder}/${index}.jpg`,
        reason: reason(index),
      }));
    const rejected = [
      ...of('a', 12, () => 'The label "Löwenzahn" is not allowed.'),
      ...of('b', 30, (index) => `It carries two labels (see c/${index}.jpg); keep one.`),
      ...of('c', 1, () => 'The file has no bytes.'),
    ];
    const text = describeReport(buildReport({ chain, rejected }));
    expect(text).toContain(
      [
        '43 photos were left out:',
        '  b/0.jpg and 29 more: It carries two labels (see c/0.jpg); keep one.',
        '  a/0.jpg and 11 more: The label "Löwenzahn" is not allowed.',
        '  c/0.jpg: The file has no bytes.',
      ].join('\n'),
    );
    const many = of('d', 20, (index) => `reason ${index}`);
    expect(describeReport(buildReport({ chain, rejected: many }))).toContain(
      '12 photos were left out for other reasons; --json FILE lists them all',
    );
  });

  test('names what makes the features, and says what is lost without a backbone', () => {
    const championOn = (id: string) => {
      const record = {
        name: 'meadow',
        version: 'v0123456789',
        dataset,
        extractor: { id },
      } as unknown as ModelRecord;
      return describeReport(buildReport({ champion: { record, evaluation: undefined } }));
    };
    expect(championOn('classical-v3')).toMatch(/on features of classical-v3\.\n.*want of a backbone/);
    expect(championOn('efficientnet')).toContain('v0123456789 serves, on features of efficientnet.');
    expect(championOn('efficientnet')).not.toContain('want of a backbone');
  });

  test('of a failure carries its code and sentence and nothing unknown', () => {
    const report = buildReport({ error: new DandelionError('no-images', 'The folder is empty.') });
    expect(report).toMatchObject({
      ok: false,
      dataset: null,
      error: { code: 'no-images', detail: 'The folder is empty.' },
    });
  });

  test('is written whole, with the folders it needs', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'dandelion-report-'));
    const path = join(folder, 'deep', 'report.json');
    await writeReport(path, buildReport({}));
    expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ ok: true });
    expect(await readdir(join(folder, 'deep'))).toEqual(['report.json']);
    await expect(writeReport(join(path, 'x'), buildReport({}))).rejects.toMatchObject({ code: 'bad-config' });
    await rm(folder, { recursive: true });
  });
});

describe('exit codes', () => {
  test.each([
    ['bad-config', 2],
    ['port-in-use', 2],
    ['no-images', 2],
    ['bad-manifest', 2],
    ['model-rejected', 3],
    ['internal', 1],
    ['upstream-unavailable', 1],
  ] as const)('%s -> %d', (code, exitCode) => {
    expect(exitCodeOf(new DandelionError(code, ''))).toBe(exitCode);
  });

  test('come from the step that failed', () => {
    const problem = { title: 'No usable photo was found', detail: 'Nothing there.', code: 'no-images' };
    const failure = failureOf(stateOf(step('ingest', { status: 'failed', problem })), '/logs');
    expect(failure).toMatchObject({
      code: 'no-images',
      message: 'ingest: Nothing there. (log: /logs/ingest.log)',
    });
    expect(failureOf(stateOf(step('ingest')), '/logs')).toBeUndefined();
  });

  test.each([
    ['accuracy on 6 test photos: 0.6667, limit 0.85', true],
    ['bytes relative to the champion: 3.573, limit 2', false],
  ])('of the gate advise photos where they help (%s)', (detail, helped) => {
    const problem = { title: 'The gate refused this model', detail, code: 'model-rejected' };
    const message = failureOf(stateOf(step('deploy', { status: 'failed', problem })), '/logs')?.message ?? '';
    expect(message.includes('More photos')).toBe(helped);
    expect(message).toContain('GATE_');
  });
});

describe('progress', () => {
  test('outside a terminal is one line for each change of a step', async () => {
    const stream = new PassThrough();
    const view = createProgressView(stream as unknown as NodeJS.WriteStream);
    const waiting = pipelineFunctions.slice(1).map((name) => step(name, { status: 'waiting' }));
    const show = (changes: Partial<PipelineStep>) =>
      view.update(stateOf(step('ingest', changes), ...waiting));
    show({ status: 'queued' });
    show({ status: 'running', progress: { done: 1, total: 9, note: '' } });
    show({ status: 'running', progress: { done: 2, total: 9, note: '' } });
    show({ status: 'running', attempt: 2 });
    show({ attempt: 2 });
    view.stop();
    stream.end();
    const lines = (await stream.toArray()).join('').trimEnd().split('\n');
    expect(lines.map((line) => line.trim().replace(/ +/g, ' '))).toEqual([
      'ingest starting',
      'ingest running',
      'ingest running (attempt 2)',
      'ingest done in 2.5 s',
    ]);
  });

  test.each([
    [12, '12 ms'],
    [2500, '2.5 s'],
    [125_400, '2 min 5 s'],
  ])('%d ms read as %s', (durationMs, text) => {
    expect(formatDuration(durationMs)).toBe(text);
  });
});
