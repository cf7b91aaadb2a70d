/** HTTP Protocol Binding 1.0.2, section 3.1: binary content mode. */
import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Event } from '../../events.ts';
import { decodeEvents, encodeBinary } from '../cloudevents.ts';
import { startFunction } from '../testing.ts';
import { MIRROR_SOURCE, mirror, REQUIRED, REQUIRED_HEADERS } from './mirror.ts';

let server: { url: string; close(): Promise<void> };
beforeAll(async () => {
  server = await startFunction(mirror, { name: 'mirror' });
});
afterAll(() => server.close());

type Headers = Record<string, string>;

interface Answer {
  status: number;
  headers: Headers;
  body: Buffer;
}

/** Headers exactly as given: `fetch` would correct some of them. */
function send(headers: Headers, body: Buffer | string = ''): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(server.url, { method: 'POST', headers }, async (response) => {
      const bytes = Buffer.concat(await response.toArray());
      resolve({ status: response.statusCode ?? 0, headers: response.headers as Headers, body: bytes });
    });
    sent.on('error', reject).end(body);
  });
}

/** What the server read, as it sent it back. */
async function mirrored(headers: Headers, body: Buffer | string = ''): Promise<Event | undefined> {
  const answer = await send(headers, body);
  expect(answer.status).toBe(200);
  return decodeEvents(answer.headers, answer.body)?.events[0];
}

async function refusal(headers: Headers, body: Buffer | string = ''): Promise<[number, string]> {
  const { status, headers: answered, body: problem } = await send(headers, body);
  expect(answered['content-type']).toBe('application/problem+json');
  return [status, (JSON.parse(problem.toString()) as { code: string }).code];
}

describe('section 3: which mode a message is in', () => {
  it('binary where the content type is not one of CloudEvents', async () => {
    const answer = await send({ ...REQUIRED_HEADERS, 'content-type': 'application/json' }, '{"a":1}');
    expect([answer.status, answer.headers['ce-source'], answer.headers['content-type']]).toEqual([
      ...[200, MIRROR_SOURCE, 'application/json'],
    ]);
  });

  it('none where there are no attributes', async () => {
    expect((await send({ 'content-type': 'application/json' }, '{}')).body.toString()).toBe('no event');
  });

  it('none on a method without a body', async () => {
    const answer = await fetch(server.url, { headers: REQUIRED_HEADERS });
    expect(await answer.text()).toBe('no event');
  });
});

describe('section 3.1.1: the content type is datacontenttype', () => {
  it.each(['application/json', 'Application/JSON; charset=utf-8', 'text/xml', 'image/png'])(
    '%s',
    async (type) => {
      const event = await mirrored(
        { ...REQUIRED_HEADERS, 'content-type': type },
        type.includes('JSON') || type.includes('json') ? '1' : 'x',
      );
      expect(event?.datacontenttype).toBe(type);
    },
  );

  it('absent where there is none', async () => {
    expect(await mirrored(REQUIRED_HEADERS)).not.toHaveProperty('datacontenttype');
  });

  it('refuses ce-datacontenttype', async () => {
    const headers = { ...REQUIRED_HEADERS, 'ce-datacontenttype': 'application/json' };
    expect(await refusal(headers)).toEqual([400, 'bad-event']);
  });

  it.each(['xyz', 'text/', '/plain', 'a b/c'])(
    'refuses what is no media type (RFC 2046): %j',
    async (type) => {
      expect(await refusal({ ...REQUIRED_HEADERS, 'content-type': type }, 'x')).toEqual([
        415,
        'unsupported-media-type',
      ]);
    },
  );
});

describe('section 3.1.2: the body is the data', () => {
  it('as bytes, untouched', async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const event = await mirrored({ ...REQUIRED_HEADERS, 'content-type': 'image/png' }, bytes);
    expect(event?.data).toEqual(bytes);
  });

  it.each(['application/json', 'text/json', 'application/a+json', 'APPLICATION/A+JSON'])(
    'read as JSON where the type is %s (JSON Format, section 3.1.1)',
    async (type) => {
      const event = await mirrored({ ...REQUIRED_HEADERS, 'content-type': type }, '{"a":"é"}');
      expect(event?.data).toEqual({ a: 'é' });
    },
  );

  it('a JSON string stays quoted on the wire (JSON Format, section 3.2)', async () => {
    const headers = { ...REQUIRED_HEADERS, 'content-type': 'application/json' };
    const answer = await send(headers, '"just a string"');
    expect(answer.body.toString()).toBe('"just a string"');
  });

  it('an empty body is no data', async () => {
    const answer = await send({ ...REQUIRED_HEADERS, 'content-type': 'application/json' });
    expect([answer.status, answer.body.length]).toEqual([200, 0]);
  });

  it.each([
    ['broken JSON', Buffer.from('{')],
    ['JSON that is not UTF-8', Buffer.from([0x22, 0xff, 0x22])],
  ])('refuses %s', async (_name, body) => {
    const headers = { ...REQUIRED_HEADERS, 'content-type': 'application/json' };
    expect(await refusal(headers, body)).toEqual([400, 'bad-event']);
  });

  it('takes events of 64 KiB (Core, Size Limits) and refuses what is above its own limit', async () => {
    const headers = { ...REQUIRED_HEADERS, 'content-type': 'text/plain' };
    expect((await mirrored(headers, 'x'.repeat(64 * 1024)))?.data).toHaveLength(64 * 1024);
    expect(await refusal(headers, 'x'.repeat(1024 * 1024 + 1))).toEqual([413, 'body-too-large']);
  });
});

describe('section 3.1.3.1: attributes are headers with the prefix ce-', () => {
  it('extensions too, in any case (RFC 9110, section 5.1)', async () => {
    const headers = {
      ...{ 'CE-Id': '1', 'Ce-Source': '/s', 'cE-TYPE': 't', 'CE-SPECVERSION': '1.0' },
      ...{ 'Ce-MyExtension1': 'x' },
    };
    expect(await mirrored(headers)).toMatchObject({ type: 't', myextension1: 'x' });
  });

  it.each([
    ['a dash', 'ce-my-ext'],
    ['an underscore', 'ce-my_ext'],
    ['a dot', 'ce-my.ext'],
    ['nothing', 'ce-'],
    ['the reserved name data', 'ce-data'],
  ])('refuses names with %s (Core, Attribute Naming)', async (_name, header) => {
    expect(await refusal({ ...REQUIRED_HEADERS, [header]: 'x' })).toEqual([400, 'bad-event']);
  });
});

describe('section 3.1.3.2: header values are percent-encoded UTF-8', () => {
  it.each([
    ['the example of the section', 'Euro%20%E2%82%AC%20%F0%9F%98%80', 'Euro € 😀'],
    ['lower-case digits', '%e2%82%ac', '€'],
    ['what needed no encoding', '%41%42', 'AB'],
    ['one round only', '%2541', '%41'],
    ['a percent sign alone', '100%', '100%'],
    ['a percent sign before other letters', '5%xy', '5%xy'],
    ['a plus sign', 'a+b', 'a+b'],
    ['spaces as they are', 'a b', 'a b'],
    ['a quoted value (RFC 9110, section 5.6.4)', '"a b"', 'a b'],
    ['a quoted value with escapes', '"a \\"b\\" \\\\c"', 'a "b" \\c'],
    ['a quoted value that is percent-encoded', '"%C3%A9"', 'é'],
  ])('reads %s', async (_name, header, subject) => {
    expect((await mirrored({ ...REQUIRED_HEADERS, 'ce-subject': header }))?.subject).toBe(subject);
  });

  it.each([
    ['an overlong encoding', '%C0%A0'],
    ['a lone continuation byte', '%A0'],
    ['a sequence that is cut off', '%E2%82'],
    ['a surrogate', '%ED%A0%80'],
    ['a control character', 'a%0Ab'],
    ['a control character beyond ASCII', '%C2%85'],
    ['a noncharacter', '%EF%BF%BE'],
    ['bytes that are not encoded', Buffer.from('é').toString('latin1')],
  ])('refuses %s', async (_name, header) => {
    expect(await refusal({ ...REQUIRED_HEADERS, 'ce-subject': header })).toEqual([400, 'bad-event']);
  });

  it.each([
    [' ', '%20'],
    ['"', '%22'],
    ['%', '%25'],
    ['é', '%C3%A9'],
    ['€', '%E2%82%AC'],
    ['😀', '%F0%9F%98%80'],
    ["!#$&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~", "!#$&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~"],
  ])('writes %j as %s', (subject, header) => {
    expect(encodeBinary({ ...REQUIRED, subject }).headers['ce-subject']).toBe(header);
  });

  it('writes numbers and booleans in their canonical form (Core, Type System)', () => {
    const event: Event = { ...REQUIRED, ahundred: 100, negative: -1, yes: true, no: false };
    expect(encodeBinary(event).headers).toMatchObject({
      ...{ 'ce-ahundred': '100', 'ce-negative': '-1', 'ce-yes': 'true', 'ce-no': 'false' },
    });
  });
});

describe('Core, Required Attributes', () => {
  it.each(['id', 'source', 'type', 'specversion'])('refuses an event without %s', async (name) => {
    const { [`ce-${name}`]: _, ...others } = REQUIRED_HEADERS as Headers;
    expect(await refusal(others)).toEqual([400, 'bad-event']);
  });

  it.each(['id', 'source', 'type', 'specversion'])('refuses an empty %s', async (name) => {
    expect(await refusal({ ...REQUIRED_HEADERS, [`ce-${name}`]: '' })).toEqual([400, 'bad-event']);
  });

  it.each(['0.3', '1.1', '2.0', '1'])('refuses specversion %s', async (version) => {
    expect(await refusal({ ...REQUIRED_HEADERS, 'ce-specversion': version })).toEqual([400, 'bad-event']);
  });

  it.each([
    'https://a.test/b?c#d',
    'mailto:a@b.test',
    'urn:uuid:6e8bc430',
    '/a/b',
    '#f',
    '1-555-123-4567',
    '//a/b',
  ])('takes the source %s', async (source) => {
    expect((await send({ ...REQUIRED_HEADERS, 'ce-source': source })).status).toBe(200);
  });

  it.each(['a b', '<x>', '%25zz', 'a|b'])('refuses the source %j, no URI reference', async (source) => {
    expect(await refusal({ ...REQUIRED_HEADERS, 'ce-source': source })).toEqual([400, 'bad-event']);
  });
});

describe('Core, Optional Attributes', () => {
  it.each([
    ...['2026-11-23T10:00:00Z', '2026-11-23T10:00:00.123456789Z', '2026-11-23T10:00:00+05:30'],
    ...['2026-11-23t10:00:00z', '2016-12-31T23:59:60Z', '2026-11-23T10:00:00-00:00'],
  ])('takes the time %s and gives it back as it was', async (time) => {
    expect((await mirrored({ ...REQUIRED_HEADERS, 'ce-time': time }))?.time).toBe(time);
  });

  it.each([
    ...['lunchtime', '2018-04-05T18:31Z', '2018-04-05T18:31:00X', '2018-04-05T18:31:00+25:00'],
    ...['2018-04-05T18:31:00+xx:00', '2018-04-05T18:31:00+05', '2018-04-05', '2018-13-05T18:31:00Z'],
    ...['2018-04-32T18:31:00Z', '2018-04-05T24:31:00Z', '2018-04-05 18:31:00Z', '2018-04-05T18:31:00', ''],
  ])('refuses the time %j (RFC 3339)', async (time) => {
    expect(await refusal({ ...REQUIRED_HEADERS, 'ce-time': time })).toEqual([400, 'bad-event']);
  });

  it.each([
    ['ce-subject', ''],
    ['ce-dataschema', ''],
    ['ce-dataschema', '/relative'],
    ['ce-dataschema', 'a b'],
  ])('refuses %s: %j', async (header, value) => {
    expect(await refusal({ ...REQUIRED_HEADERS, [header]: value })).toEqual([400, 'bad-event']);
  });

  it('takes an empty extension', async () => {
    expect(await mirrored({ ...REQUIRED_HEADERS, 'ce-ext': '' })).toMatchObject({ ext: '' });
  });
});
