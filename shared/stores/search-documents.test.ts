import { describe, expect, test } from 'vitest';
import type { PredictionRecord } from '../events.ts';
import { predictionDocument } from './search-documents.ts';

const answered: PredictionRecord = {
  id: 'record-1',
  time: '2030-01-01T01:00:00+01:00',
  traceId: 'a'.repeat(32),
  model: { name: 'plants', version: 'v0000000001' },
  revision: 'predict-00001',
  outcome: 'answered',
  code: null,
  label: 'grass',
  scores: { dandelion: 0.25, grass: 0.75 },
  latencyMs: 12.5,
  weight: 10,
  input: { brightness: 0.5 },
  embedding: { digest: 'abc' },
  clientHash: 'c0ffee',
};
const unanswered = { label: null, scores: {}, input: {}, embedding: undefined, clientHash: undefined };

function parsed(record: PredictionRecord): Record<string, unknown> {
  return JSON.parse(predictionDocument(record, 'default').json) as Record<string, unknown>;
}

describe('a prediction as a document', () => {
  test('has the id of its record, and every field of it where ECS looks for it', () => {
    expect(predictionDocument(answered, 'default')).toMatchObject({
      stream: 'predictions-dandelion.predict-default',
      id: 'record-1',
    });
    expect(parsed(answered)).toEqual({
      '@timestamp': '2030-01-01T00:00:00.000Z',
      data_stream: { type: 'predictions', dataset: 'dandelion.predict', namespace: 'default' },
      event: {
        id: 'record-1',
        kind: 'event',
        action: 'prediction',
        outcome: 'success',
        duration: 12_500_000,
      },
      trace: { id: 'a'.repeat(32) },
      service: { name: 'predict' },
      faas: { name: 'predict', version: 'predict-00001' },
      ml: {
        model: { name: 'plants', version: 'v0000000001' },
        prediction: {
          ...{ outcome: 'answered', weight: 10, latency_ms: 12.5 },
          ...{ label: 'grass', score: 0.75, margin: 0.5, scores: { dandelion: 0.25, grass: 0.75 } },
        },
        input: { brightness: 0.5 },
        embedding: { digest: 'abc' },
      },
      labels: { client_hash: 'c0ffee' },
    });
  });

  test('of a refused request says why, has no answer, and is no failure of the function', () => {
    const document = parsed({ ...answered, ...unanswered, outcome: 'refused', code: 'not-an-image' });
    expect(document).toMatchObject({ event: { outcome: 'success' }, error: { code: 'not-an-image' } });
    expect(document.ml).toEqual({
      model: { name: 'plants', version: 'v0000000001' },
      prediction: { outcome: 'refused', weight: 10, latency_ms: 12.5 },
      input: {},
    });
  });

  test('of a failed request without a model or a revision leaves both out', () => {
    const model = { name: 'plants', version: null };
    const failed = { ...answered, ...unanswered, outcome: 'failed', code: 'no-model', weight: 1 } as const;
    const document = parsed({ ...failed, model, revision: null, traceId: undefined });
    expect(document).toMatchObject({ event: { outcome: 'failure' }, error: { code: 'no-model' } });
    expect(document.faas).toEqual({ name: 'predict' });
    expect(document.ml).toEqual({
      model: { name: 'plants' },
      prediction: { outcome: 'failed', weight: 1, latency_ms: 12.5 },
      input: {},
    });
    expect(document).not.toHaveProperty('trace');
  });
});
