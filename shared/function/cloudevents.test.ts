import { CloudEvent, HTTP } from 'cloudevents';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Event } from '../events.ts';
import { decodeEvents, encodeBinary, encodeStructured, mediaTypeOf } from './cloudevents.ts';

const attributes = { specversion: '1.0', id: '1', source: '/s', type: 't' };
const headers = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't' };

function decodeOne(given: Record<string, string>, body: Buffer | string | undefined): Event | undefined {
  return decodeEvents(given, Buffer.from(body ?? ''))?.events[0];
}

const structured = (document: unknown) =>
  decodeOne({ 'content-type': 'application/cloudevents+json' }, JSON.stringify(document));

/** Text that an attribute may hold: no control characters, no lone surrogates, no noncharacters. */
const attributeText = fc
  .string({ unit: 'binary', minLength: 1 })
  .map((text) => text.toWellFormed().replaceAll(/[\p{Cc}\p{Noncharacter_Code_Point}]/gu, 'x'));
const anyEvent = fc.record({
  specversion: fc.constant('1.0'),
  id: attributeText,
  source: fc.constant('/dandelion/functions/train'),
  type: attributeText,
  subject: attributeText,
  time: fc.constant('2026-11-23T10:00:00.123456789+02:00'),
  datacontenttype: fc.constant('application/json'),
  data: fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)) as unknown),
});

describe('round trips', () => {
  it('gives every event back as it was, in both modes', () => {
    const property = fc.property(anyEvent, (event: Event) => {
      const binary = encodeBinary(event);
      expect(decodeOne(binary.headers, binary.body)).toEqual(event);
      const whole = encodeStructured(event);
      expect(decodeOne(whole.headers, whole.body)).toEqual(event);
    });
    fc.assert(property, { numRuns: 300 });
  });

  it('sends headers that HTTP can carry', () => {
    const check = (event: Event) => {
      for (const value of Object.values(encodeBinary(event).headers)) expect(value).toMatch(/^[\x20-\x7e]*$/);
    };
    fc.assert(fc.property(anyEvent, check));
  });

  it.each([
    ['bytes', Buffer.from([0, 255, 128, 7]), 'application/octet-stream'],
    ['text', 'plain text', 'text/plain'],
    ['a JSON string', 'quoted', 'application/json'],
    ['a JSON number', 0, 'application/json'],
    ['JSON null', null, 'application/json'],
    ['a +json document', { a: [1] }, 'application/vnd.flowers+json'],
  ])('keeps %s', (_name, data, datacontenttype) => {
    const event: Event = { ...attributes, datacontenttype, data };
    const binary = encodeBinary(event);
    expect(decodeOne(binary.headers, binary.body)).toEqual(event);
    const whole = encodeStructured(event);
    expect(decodeOne(whole.headers, whole.body)).toEqual(event);
  });
});

describe('against the public SDK', () => {
  const data = { model: 'dandelion', images: 3 };
  const event: Event = { ...attributes, subject: 'v1', time: '2026-11-23T10:00:00.000Z', data };

  it('is understood by it, in both modes', () => {
    for (const { headers: sent, body } of [encodeBinary(event), encodeStructured(event)]) {
      const read = HTTP.toEvent<typeof data>({ headers: sent, body: body?.toString() });
      expect(read).toMatchObject({ ...attributes, subject: 'v1', data });
    }
  });

  it('understands it, in both modes', () => {
    for (const message of [HTTP.binary(new CloudEvent(event)), HTTP.structured(new CloudEvent(event))]) {
      const sent = message.headers as Record<string, string>;
      expect(decodeOne(sent, String(message.body))).toMatchObject({ ...attributes, data });
    }
  });

  it('reads its bytes back from structured mode', () => {
    const bytes = Buffer.from('a photo');
    const message = HTTP.structured(new CloudEvent({ ...attributes, data: bytes }));
    expect(structured(JSON.parse(String(message.body)))?.data).toEqual(bytes);
  });
});

describe('reading', () => {
  it('finds no event in a plain request', () => {
    expect(decodeEvents({ 'content-type': 'application/json' }, Buffer.from('{}'))).toBeUndefined();
  });

  it('decodes percent-encoding once, and quoted values of older senders', () => {
    const read = (subject: string) => decodeOne({ ...headers, 'ce-subject': subject }, '')?.subject;
    expect(read('caf%C3%A9')).toBe('café');
    expect(read('%F0%9F%8C%BC')).toBe('🌼');
    expect(read('%2541')).toBe('%41');
    expect(read('100% sure')).toBe('100% sure');
    expect(read('"with \\"quotes\\""')).toBe('with "quotes"');
  });

  it('compares media types without regard to case and parameters', () => {
    expect(mediaTypeOf(' Application/JSON ; charset=UTF-8')).toBe('application/json');
    const sent = { 'content-type': 'Application/CloudEvents+JSON; charset=utf-8' };
    expect(decodeOne(sent, JSON.stringify(attributes))).toEqual(attributes);
    expect(decodeOne({ ...headers, 'content-type': 'APPLICATION/X+JSON' }, '{"a":1}')?.data).toEqual({
      a: 1,
    });
  });

  it('makes up no time and no data', () => {
    expect(decodeOne(headers, '')).toEqual(attributes);
    expect(encodeBinary(attributes).headers).not.toHaveProperty('ce-time');
    expect(encodeBinary(attributes).body).toBeUndefined();
  });

  it('takes null attributes for absent and reads JSON data sent as base64', () => {
    expect(structured({ ...attributes, subject: null, data_base64: null })).toEqual(attributes);
    const encoded = Buffer.from('{"a":1}').toString('base64');
    const event = structured({ ...attributes, datacontenttype: 'application/json', data_base64: encoded });
    expect(event?.data).toEqual({ a: 1 });
  });

  it('reads batches', () => {
    const batch = Buffer.from(JSON.stringify([attributes, { ...attributes, id: '2' }]));
    const message = decodeEvents({ 'content-type': 'application/cloudevents-batch+json' }, batch);
    expect(message).toMatchObject({ mode: 'batched', events: [{ id: '1' }, { id: '2' }] });
  });

  it.each<[string, Record<string, string>, string]>([
    ['a missing attribute', { ...headers, 'ce-type': '' }, ''],
    ['another version', { ...headers, 'ce-specversion': '0.3' }, ''],
    ['a time that is none', { ...headers, 'ce-time': 'yesterday' }, ''],
    ['an attribute name with a dash', { ...headers, 'ce-my-name': 'x' }, ''],
    ['data as a header', { ...headers, 'ce-data': 'x' }, ''],
    ['overlong UTF-8', { ...headers, 'ce-subject': '%C0%A0' }, ''],
    ['a control character', { ...headers, 'ce-subject': 'a%0Ab' }, ''],
    ['broken JSON data', { ...headers, 'content-type': 'application/json' }, '{'],
    ['broken structured JSON', { 'content-type': 'application/cloudevents+json' }, '{'],
    ['a structured array', { 'content-type': 'application/cloudevents+json' }, '[]'],
    ['a batch that is no array', { 'content-type': 'application/cloudevents-batch+json' }, '{}'],
  ])('refuses %s as bad-event', (_name, given, body) => {
    expect(() => decodeEvents(given, Buffer.from(body))).toThrow(
      expect.objectContaining({ code: 'bad-event' }),
    );
  });

  it.each<[string, object]>([
    ['data twice', { data: 1, data_base64: 'AA==' }],
    ['broken base64', { data_base64: 'a photo' }],
    ['an attribute that is an object', { extra: {} }],
    ['a capital in a name', { myName: 'x' }],
  ])('refuses %s in a structured event', (_name, extra) => {
    expect(() => structured({ ...attributes, ...extra })).toThrow(
      expect.objectContaining({ code: 'bad-event' }),
    );
  });

  it('says so when the format is another one', () => {
    const decode = () => decodeEvents({ 'content-type': 'application/cloudevents+avro' }, Buffer.from('x'));
    expect(decode).toThrow(expect.objectContaining({ code: 'unsupported-media-type' }));
  });
});

describe('writing', () => {
  it('keeps all digits of the time', () => {
    const time = '2026-11-23T10:00:00.123456789Z';
    expect(encodeBinary({ ...attributes, time }).headers['ce-time']).toBe(time);
  });

  it('encodes spaces, quotes, percent and everything outside ASCII', () => {
    const { headers: sent } = encodeBinary({ ...attributes, subject: 'a "b" 5% é🌼' });
    expect(sent['ce-subject']).toBe('a%20%22b%22%205%25%20%C3%A9%F0%9F%8C%BC');
  });

  it('names the function as the culprit of an invalid event', () => {
    const encode = () => encodeBinary({ ...attributes, badName: 'x' });
    expect(encode).toThrow(expect.objectContaining({ code: 'bad-result' }));
  });
});
