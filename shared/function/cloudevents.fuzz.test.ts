import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createEvent } from '../events.ts';
import { fuzzing, isRefusal, mutated } from '../testing-fuzz.ts';
import { decodeEvents, encodeBinary, encodeStructured } from './cloudevents.ts';

const event = createEvent({
  type: 'dev.dandelion.retrain.requested.v1',
  source: '/tests',
  id: '1',
  subject: 'Löwenzahn',
  data: { model: 'flowers', source: { kind: 'folder', uri: 'file:///photos' }, seed: 1 },
});
const binary = encodeBinary(event);
const structured = encodeStructured(event);

function readsOrRefuses(headers: Record<string, string>, body: Buffer): void {
  try {
    const message = decodeEvents(headers, body);
    for (const each of message?.events ?? []) expect(each).toMatchObject({ specversion: '1.0' });
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
}

const mediaType = fc.oneof(
  fc.constantFrom(
    'application/cloudevents+json',
    'application/cloudevents-batch+json; charset=utf-8',
    'Application/CloudEvents',
    'application/json',
    'text/plain',
    'image/jpeg',
    '',
  ),
  fc.string(),
);
const attributeName = fc.oneof(
  fc.constantFrom('id', 'source', 'type', 'specversion', 'time', 'subject', 'data', 'datacontenttype', ''),
  fc.string(),
  fc.constantFrom('__proto__', 'constructor', 'toString', 'data_base64'),
);
const anyHeaders = fc
  .tuple(mediaType, fc.dictionary(attributeName, fc.oneof(fc.string(), fc.string({ unit: 'binary' }))))
  .map(([type, attributes]) => ({
    'content-type': type,
    ...Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value])),
  }));
const anyJson = fc.json().map((text) => Buffer.from(text));
const anyBody = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  anyJson,
);

test('arbitrary headers and bytes are read or refused', () => {
  fc.assert(fc.property(anyHeaders, anyBody, readsOrRefuses), fuzzing(2000));
});

test('a binary event with injured headers or body is read or refused', () => {
  const injured = fc.tuple(anyHeaders, mutated(fc.constant(binary.body ?? Buffer.alloc(0))));
  fc.assert(
    fc.property(injured, ([headers, body]) => readsOrRefuses({ ...binary.headers, ...headers }, body)),
    fuzzing(1000),
  );
});

test('an injured structured event is read or refused', () => {
  fc.assert(
    fc.property(mutated(fc.constant(structured.body ?? Buffer.alloc(0))), (body) =>
      readsOrRefuses(structured.headers, body),
    ),
    fuzzing(2000),
  );
});

test('a JSON document with arbitrary members is read or refused', () => {
  const document = fc.dictionary(attributeName, fc.jsonValue()).map((members) => ({ ...event, ...members }));
  const body = fc.oneof(document, fc.array(document, { maxLength: 3 }));
  fc.assert(
    fc.property(body, mediaType, (value, type) =>
      readsOrRefuses({ 'content-type': type }, Buffer.from(JSON.stringify(value))),
    ),
    fuzzing(1000),
  );
});
