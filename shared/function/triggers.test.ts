import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Event } from '../events.ts';
import { parseTriggers, readTriggers, type Trigger } from './triggers.ts';

const event = (attributes: Record<string, unknown> = {}): Event => ({
  specversion: '1.0',
  id: '1',
  source: '/shop',
  type: 'dev.shop.sold.v1',
  ...attributes,
});

function trigger(spec: string, kind = 'Service'): Trigger {
  const text = `
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: { name: sample }
spec:
  broker: main
  subscriber: { ref: { apiVersion: serving.knative.dev/v1, kind: ${kind}, name: worker } }
${spec.replaceAll(/^/gm, '  ')}`;
  const [only] = parseTriggers([{ name: 'sample.yaml', text }]);
  if (only === undefined) throw new Error('no trigger');
  return only;
}

describe('the pipeline that ships', () => {
  const folder = join(import.meta.dirname, '../../knative/base/eventing');

  test.each([
    ['retrain.requested', ['ingest']],
    ['images.ingested', ['preprocess']],
    ['features.stored', ['train']],
    ['model.trained', ['evaluate']],
    ['model.approved', ['deploy']],
    ['model.rejected', []],
    ['model.deployed', []],
  ])('leads from %s to %j', async (noun, functions) => {
    const triggers = await readTriggers(folder);
    const next = triggers.filter((each) => each.matches(event({ type: `dev.dandelion.${noun}.v1` })));
    expect(next.map((each) => each.function)).toEqual(functions);
  });

  test('leads from a dataset of which training takes long to a job', async () => {
    const triggers = await readTriggers(folder);
    const stored = { type: 'dev.dandelion.features.stored.v1' };
    const next = (executionclass: string) =>
      triggers
        .filter((each) => each.matches(event({ ...stored, executionclass })))
        .map(({ function: name, runs }) => [name, runs]);
    expect(next('long')).toEqual([['train', 'job']]);
    expect(next('short')).toEqual([['train', 'service']]);
  });

  test('tries ten times more, from a fifth of a second, twice as long each time, and loses nothing then', async () => {
    for (const { delivery } of await readTriggers(folder)) {
      expect(delivery).toEqual({
        deadLetterSink: { function: 'monitor', path: '/dead-letters' },
        retry: 10,
        backoffPolicy: 'exponential',
        backoffDelayMs: 200,
      });
    }
  });
});

describe('filters', () => {
  test.each([
    ['filters: [{ exact: { type: dev.shop.sold.v1 } }]', true],
    ['filters: [{ exact: { type: dev.shop.sold.v1, source: /other } }]', false],
    ['filters: [{ exact: { colour: blue } }]', false],
    ['filters: [{ prefix: { type: dev.shop. } }]', true],
    ['filters: [{ suffix: { type: .v2 } }]', false],
    ['filters: [{ prefix: { type: dev. } }, { suffix: { source: shop } }]', true],
    ['filters: [{ all: [{ prefix: { type: dev. } }, { exact: { source: /x } }] }]', false],
    ['filters: [{ any: [{ exact: { source: /x } }, { suffix: { type: .v1 } }] }]', true],
    ['filters: [{ not: { exact: { source: /x } } }]', true],
    ['filters: [{ not: { any: [{ prefix: { type: dev } }] } }]', false],
    ['filter: { attributes: { type: dev.shop.sold.v1, source: "" } }', true],
    ['filter: { attributes: { type: other } }', false],
    ['filters: [{ prefix: { type: dev } }]\nfilter: { attributes: { type: other } }', true],
    ['filters: []', true],
  ])('%s -> %s', (spec, passes) => {
    expect(trigger(spec).matches(event())).toBe(passes);
  });

  test('see extension attributes, never the data', () => {
    const only = trigger('filters: [{ exact: { executionclass: long } }]');
    expect(only.matches(event({ executionclass: 'long' }))).toBe(true);
    expect(trigger('filters: [{ exact: { data: x } }]').matches(event({ data: 'x' }))).toBe(false);
  });
});

describe('manifests that cannot be routed here', () => {
  test.each([
    ['filters: [{ cesql: "type LIKE \'dev%\'" }]', /CESQL/],
    ['filters: [{ not: { cesql: "TRUE" } }]', /CESQL/],
    ['filters: [{ like: { type: x } }]', /sample\.yaml, Trigger sample/],
    ['filters: [{ exact: {} }]', /sample\.yaml/],
    ['delivery: { backoffDelay: soon }', /"soon" is not a duration/],
    ['delivery: { retry: -1 }', /retry/],
  ])('%s is refused', (spec, message) => {
    expect(() => trigger(spec)).toThrow(message);
  });

  test('a subscriber that is no Service is refused', () => {
    expect(() => trigger('filters: []', 'Channel')).toThrow(/Channel/);
  });

  test('text that is no YAML is refused by name', () => {
    expect(() => parseTriggers([{ name: 'bad.yaml', text: 'a: [' }])).toThrow(/bad\.yaml/);
  });
});

test('the delivery of the Broker holds where the Trigger has none', () => {
  const [only] = parseTriggers([
    {
      name: 'both.yaml',
      text: `
kind: Broker
metadata: { name: main }
spec: { delivery: { retry: 3, backoffPolicy: linear, backoffDelay: PT1M0.5S } }
---
kind: ConfigMap
metadata: { name: other }
---
kind: Trigger
metadata: { name: sample }
spec:
  broker: main
  delivery: { retry: 1 }
  subscriber: { ref: { apiVersion: serving.knative.dev/v1, kind: Service, name: worker } }`,
    },
  ]);
  expect(only?.delivery).toEqual({ retry: 1, backoffPolicy: 'linear', backoffDelayMs: 60_500 });
});
