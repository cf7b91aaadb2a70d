/** HTTP Protocol Binding 1.0.2, section 3.2, with the JSON Event Format 1.0.2: structured content mode. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startFunction } from '../testing.ts';
import { MIRROR_SOURCE, mirror, REQUIRED } from './mirror.ts';

let server: { url: string; close(): Promise<void> };
beforeAll(async () => {
  server = await startFunction(mirror, { name: 'mirror' });
});
afterAll(() => server.close());

type Document = Record<string, unknown>;

const STRUCTURED = 'application/cloudevents+json; charset=utf-8';

function send(
  body: unknown,
  contentType = STRUCTURED,
  headers: Record<string, string> = {},
): Promise<Response> {
  const bytes = body instanceof Uint8Array ? new Uint8Array(body) : JSON.stringify(body);
  return fetch(server.url, {
    method: 'POST',
    headers: { ...headers, 'content-type': contentType },
    body: bytes,
  });
}

/** What the server read, as the document it sent back. */
async function mirrored(document: Document, contentType?: string): Promise<Document> {
  const response = await send(document, contentType);
  expect([response.status, response.headers.get('content-type')]).toEqual([200, STRUCTURED]);
  return (await response.json()) as Document;
}

async function refusal(body: unknown, contentType?: string): Promise<[number, string]> {
  const response = await send(body, contentType);
  expect(response.headers.get('content-type')).toBe('application/problem+json');
  return [response.status, ((await response.json()) as { code: string }).code];
}

describe('section 3.2.1: the content type names the format', () => {
  it.each([
    ...['application/cloudevents+json', 'application/cloudevents+json; charset=UTF-8'],
    ...['Application/CloudEvents+JSON', 'application/cloudevents+json;charset="utf-8"'],
  ])('reads %s', async (type) => {
    expect(await mirrored({ ...REQUIRED }, type)).toMatchObject({ source: MIRROR_SOURCE, type: 't' });
  });

  it.each([
    ...['application/cloudevents+avro', 'application/cloudevents+xml', 'application/cloudevents+protobuf'],
    'application/cloudevents-other+json',
  ])('refuses %s with 415, which no broker retries', async (type) => {
    expect(await refusal({ ...REQUIRED }, type)).toEqual([415, 'unsupported-media-type']);
  });
});

describe('section 3.2.3: the document holds all attributes', () => {
  it('whatever headers say', async () => {
    const response = await send({ ...REQUIRED, subject: 'inside' }, STRUCTURED, { 'ce-subject': 'outside' });
    expect(await response.json()).toMatchObject({ subject: 'inside' });
  });
});

describe('JSON Format, section 2.2: types of attributes', () => {
  it('keeps booleans, whole numbers and strings', async () => {
    const extensions = {
      yes: true,
      no: false,
      large: 2147483647,
      small: -2147483648,
      text: 'é🌼',
      binary: 'TWE=',
    };
    expect(await mirrored({ ...REQUIRED, ...extensions })).toMatchObject(extensions);
  });

  it('takes null for unset', async () => {
    const nulls = {
      subject: null,
      time: null,
      datacontenttype: null,
      dataschema: null,
      ext: null,
      data_base64: null,
    };
    const event = await mirrored({ ...REQUIRED, ...nulls });
    for (const name of Object.keys(nulls)) expect(event).not.toHaveProperty(name);
  });

  it.each([
    ['a fraction', 1.5],
    ['a number beyond 32 bits', 2147483648],
    ['an object', { a: 1 }],
    ['an array', [1]],
    ['a control character', 'a\nb'],
    ['a lone surrogate', '\ud800'],
    ['a noncharacter', '\ufffe'],
  ])('refuses %s', async (_name, value) => {
    expect(await refusal({ ...REQUIRED, ext: value })).toEqual([400, 'bad-event']);
  });

  it.each(['MyExtension', 'my.extension', 'my-extension', 'my_extension', 'größe', ''])(
    'refuses the name %j (Core, Attribute Naming)',
    async (name) => {
      expect(await refusal({ ...REQUIRED, [name]: 'x' })).toEqual([400, 'bad-event']);
    },
  );

  it.each(['id', 'source', 'type', 'specversion'])(
    'refuses %s that is a number, null or missing',
    async (name) => {
      const { [name]: _, ...others } = REQUIRED as Document;
      expect(await refusal({ ...REQUIRED, [name]: 25 })).toEqual([400, 'bad-event']);
      expect(await refusal({ ...REQUIRED, [name]: null })).toEqual([400, 'bad-event']);
      expect(await refusal(others)).toEqual([400, 'bad-event']);
    },
  );

  it.each([
    ['time', 5],
    ['time', 'lunchtime'],
    ['datacontenttype', 'xyz'],
    ['datacontenttype', ''],
    ['dataschema', ''],
    ['dataschema', 'relative'],
    ['subject', ''],
    ['subject', 5],
    ['specversion', '0.9'],
  ])('refuses %s: %j', async (name, value) => {
    expect(await refusal({ ...REQUIRED, [name]: value })).toEqual([400, 'bad-event']);
  });
});

describe('JSON Format, section 3: the envelope', () => {
  it.each<[string, unknown]>([
    ['an array', []],
    ['a string', 'event'],
    ['null', null],
    ['broken JSON', Buffer.from('{"id":')],
    ['nothing', Buffer.from('')],
    ['what is not UTF-8', Buffer.from('{"id":"\xff"}', 'latin1')],
  ])('refuses %s', async (_name, body) => {
    expect(await refusal(body)).toEqual([400, 'bad-event']);
  });
});

describe('JSON Format, section 3.1: data', () => {
  it.each<[string, Document]>([
    ['an object', { data: { a: 1 }, datacontenttype: 'application/json' }],
    ['a value without a content type, which is JSON', { data: [1, 'a', null] }],
    ['a string that looks like JSON, as a string', { data: '{"a":1}', datacontenttype: 'application/json' }],
    ['null, which is not the same as none', { data: null, datacontenttype: 'application/json' }],
    ['false', { data: false }],
    ['text', { data: '<much wow="xml"/>', datacontenttype: 'application/xml' }],
  ])('keeps %s', async (_name, members) => {
    const { data } = await mirrored({ ...REQUIRED, ...members });
    expect(data).toEqual(members.data);
  });

  it('keeps bytes as data_base64', async () => {
    const data_base64 = Buffer.from([0, 1, 254, 255]).toString('base64');
    const event = await mirrored({ ...REQUIRED, datacontenttype: 'image/png', data_base64 });
    expect(event).toMatchObject({ data_base64 });
    expect(event).not.toHaveProperty('data');
  });

  it('reads JSON that was sent as data_base64, as section 3.1.2 allows', async () => {
    const data_base64 = Buffer.from('{"a":"é"}').toString('base64');
    expect(await mirrored({ ...REQUIRED, datacontenttype: 'application/json', data_base64 })).toMatchObject({
      data: { a: 'é' },
    });
  });

  it.each<[string, Document]>([
    ['both members', { data: 'text', data_base64: 'eyAieHl6IjogMTIzIH0=' }],
    ['both members, one of them null', { data: null, data_base64: 'AA==' }],
    ['base64 that is none', { data_base64: 'not base64!' }],
    ['base64 that is a number', { data_base64: 5 }],
    ['base64 of broken JSON', { data_base64: 'ew==', datacontenttype: 'application/json' }],
  ])('refuses %s', async (_name, members) => {
    expect(await refusal({ ...REQUIRED, ...members })).toEqual([400, 'bad-event']);
  });
});
