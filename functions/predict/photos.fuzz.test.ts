import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readConfig } from '../../shared/config.ts';
import { mediaTypeOf, parseBody } from '../../shared/function/cloudevents.ts';
import { fuzzing, mutated, settlesOrRefuses } from '../../shared/testing-fuzz.ts';
import { predictSettings } from './config.ts';
import { readPhotos } from './photos.ts';

const settings = readConfig(predictSettings, { OBJECTS_DIR: '/nowhere', PREDICT_MAX_PHOTOS: '4' });
const never = new AbortController().signal;

const boundary = 'x8BoundaryX8';
const photo = Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe0]), Buffer.alloc(2000, 0x5a)]);

function formOf(files: number): Buffer {
  const parts = Array.from({ length: files }, (_, index) => [
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${index}.jpg"\r\nContent-Type: image/jpeg\r\n\r\n`,
    ),
    photo,
    Buffer.from('\r\n'),
  ]);
  return Buffer.concat([...parts.flat(), Buffer.from(`--${boundary}--\r\n`)]);
}

/** As the runtime does: the body is parsed by its media type before the function sees it. */
async function read(contentType: string, rawBody: Buffer) {
  const body = parseBody(mediaTypeOf(contentType), rawBody);
  const event = {
    ...{ body, rawBody, headers: { 'content-type': contentType } },
    ...{ method: 'POST', path: '/', query: {} },
  };
  return readPhotos(event, settings, never);
}

test('a whole form gives its files', async () => {
  const { photos } = await read(`multipart/form-data; boundary=${boundary}`, formOf(2));
  expect(photos.map((bytes) => Buffer.compare(Buffer.from(bytes), photo))).toEqual([0, 0]);
});

test('an injured form gives photos or is refused', async () => {
  const form = mutated(fc.integer({ min: 0, max: 6 }).map(formOf));
  await fc.assert(
    fc.asyncProperty(form, (body) =>
      settlesOrRefuses(read(`multipart/form-data; boundary=${boundary}`, body)),
    ),
    fuzzing(1000),
  );
});

test('a form whose head is arbitrary gives photos or is refused', async () => {
  const head = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.constantFrom('', 'boundary=', 'boundary=""', `boundary="${boundary}"; charset=utf-16`, 'boundary=a b'),
  );
  const line = fc.constantFrom(
    `--${boundary}`,
    `--${boundary}--`,
    'Content-Disposition: form-data; name="a"; filename="b"',
    'Content-Disposition: form-data; name="a',
    'Content-Disposition: form-data; name="a"; filename*=utf-16\'\'%zz',
    'Content-Type: image/jpeg; charset=nonsense',
    'Content-Transfer-Encoding: base64',
    '',
    'bytes',
  );
  const body = fc.array(line, { maxLength: 14 }).map((lines) => Buffer.from(lines.join('\r\n')));
  await fc.assert(
    fc.asyncProperty(head, body, (parameters, bytes) =>
      settlesOrRefuses(read(`multipart/form-data; ${parameters}`, bytes)),
    ),
    fuzzing(500),
  );
  await fc.assert(
    fc.asyncProperty(body, (bytes) =>
      settlesOrRefuses(read(`multipart/form-data; boundary=${boundary}`, bytes)),
    ),
    fuzzing(500),
  );
});

test('arbitrary bytes of any media type give photos or are refused', async () => {
  const type = fc.constantFrom(
    'image/jpeg',
    'application/json',
    'multipart/form-data; boundary=x',
    'text/html',
    '',
  );
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => Buffer.from(text)),
  );
  await fc.assert(
    fc.asyncProperty(type, body, (contentType, bytes) =>
      settlesOrRefuses(read(contentType, Buffer.from(bytes))),
    ),
    fuzzing(500),
  );
});
