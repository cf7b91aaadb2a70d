import { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { Busboy } from '@fastify/busboy';
import { DandelionError } from '../errors.ts';
import type { FunctionEvent } from './types.ts';

/** A `multipart/form-data` body. */
export interface Form {
  /** The last value of each field. */
  fields: ReadonlyMap<string, string>;
  /** In their order. */
  files: { field: string; bytes: Buffer }[];
}

const MOST_FIELDS = 100;

/**
 * Reads a form; what is beyond the limits is left out, so ask for one file more than is allowed to notice it.
 *
 * @param advice what to send instead, for the message
 * @throws DandelionError `bad-request` when it is malformed or cut off
 */
export async function readForm(
  event: Pick<FunctionEvent, 'headers' | 'rawBody'>,
  limits: { files: number; fieldBytes?: number },
  advice: string,
): Promise<Form> {
  const [contentType = ''] = [event.headers['content-type'] ?? []].flat();
  const fields = new Map<string, string>();
  const files: Promise<Form['files'][number]>[] = [];
  try {
    const form = new Busboy({
      headers: { 'content-type': contentType },
      limits: { files: limits.files, fields: MOST_FIELDS, fieldSize: limits.fieldBytes ?? 1024 },
    });
    form.on('field', (field, value) => fields.set(field, value));
    form.on('file', (field, file) => {
      const reading = readAll(file).then((bytes) => ({ field, bytes }));
      // A body cut off within a file fails the form and the file; the second failure, unheard, would end the process.
      reading.catch(() => {});
      files.push(reading);
    });
    Readable.from([event.rawBody]).pipe(form);
    await finished(form);
    return { fields, files: await Promise.all(files) };
  } catch (cause) {
    throw new DandelionError('bad-request', `The multipart body is malformed. ${advice}`, { cause });
  }
}

async function readAll(file: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of file) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
