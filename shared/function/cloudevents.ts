import { isUtf8 } from 'node:buffer';
import type { IncomingHttpHeaders } from 'node:http';
import { CloudEvent, HTTP } from 'cloudevents';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { checkedAttribute, checkedEvent, isTimestamp, REQUIRED_ATTRIBUTES } from './event-attributes.ts';

/**
 * The HTTP binding of CloudEvents 1.0, both ways.
 *
 * Outgoing events are validated and laid out by the `cloudevents` package; what it gets wrong is mended here: it
 * sends non-ASCII attributes raw, cuts fractions of a second, invents a missing `time`, and sends JSON strings
 * without quotes and empty binary data as an object.
 *
 * Incoming events are read by the parser below, not by the package. The package reads the body up to twice, turns
 * `data_base64` into 32-bit numbers, matches media types by case, does not decode percent-encoding, and takes about
 * five times the processor time for each event.
 *
 * Source: CloudEvents HTTP Protocol Binding 1.0.2 and JSON Event Format 1.0.2.
 */
export interface EventMessage {
  mode: 'binary' | 'structured' | 'batched';
  events: Event[];
}

/** What goes onto the wire; no body means an event without data. */
export interface EncodedEvent {
  headers: Record<string, string>;
  body: Buffer | undefined;
}

/** Attribute names that HTTP headers cannot set: the content type and the body carry them. */
const NOT_HEADERS = new Set(['data', 'datacontenttype']);
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The media type without parameters, in lower case; empty when there is none. */
export function mediaTypeOf(contentType: string | undefined): string {
  if (contentType === undefined) return '';
  const end = contentType.indexOf(';');
  return (end < 0 ? contentType : contentType.slice(0, end)).trim().toLowerCase();
}

/** True for `application/json`, `text/json` and every `+json` type. */
function isJsonType(mediaType: string): boolean {
  return mediaType === 'application/json' || mediaType === 'text/json' || mediaType.endsWith('+json');
}

/**
 * Reads the CloudEvents of a request; `undefined` when it carries none.
 *
 * @param headers names in lower case, as Node gives them
 * @throws DandelionError `bad-event` when it is malformed, `unsupported-media-type` for formats other than JSON
 */
export function decodeEvents(headers: IncomingHttpHeaders, body: Buffer): EventMessage | undefined {
  const mediaType = mediaTypeOf(headers['content-type']);
  if (mediaType.startsWith('application/cloudevents')) return decodeStructured(mediaType, body);
  const carriesEvent = REQUIRED_ATTRIBUTES.some((name) => headers[`ce-${name}`] !== undefined);
  if (!carriesEvent) return undefined;
  return { mode: 'binary', events: [decodeBinary(headers, mediaType, body)] };
}

/**
 * Reads a body by its media type: JSON to a value, text to a string, anything else stays a Buffer.
 *
 * @throws DandelionError with the given code when it says JSON and is not
 */
export function parseBody(
  mediaType: string,
  body: Buffer,
  code: 'bad-request' | 'bad-event' = 'bad-request',
): unknown {
  if (body.length === 0) return undefined;
  if (isJsonType(mediaType)) return parseJson(body, code);
  if (mediaType.startsWith('text/')) return body.toString();
  return body;
}

/**
 * Lays an event out with attributes as headers and data as the body.
 *
 * @param bytes of the data, where they are known already
 * @throws DandelionError `bad-result` when it is not a valid CloudEvent
 */
export function encodeBinary(event: Event, bytes?: Buffer): EncodedEvent {
  // The package would write the data as JSON, too, for a body that is not used.
  const laidOut = HTTP.binary(validated({ ...event, data: undefined })).headers;
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(laidOut)) {
    if (name.startsWith('ce-') && value !== undefined) headers[name] = percentEncode(String(value));
  }
  delete headers['ce-time'];
  if (event.time !== undefined) headers['ce-time'] = event.time;
  if (event.data === undefined) return { headers, body: undefined };
  const isBytes = event.data instanceof Uint8Array;
  headers['content-type'] =
    event.datacontenttype ?? (isBytes ? 'application/octet-stream' : 'application/json');
  return { headers, body: bytes ?? dataBytes(event) };
}

/**
 * Lays an event out as one JSON document.
 *
 * @throws DandelionError `bad-result` when it is not a valid CloudEvent
 */
export function encodeStructured(event: Event): EncodedEvent {
  const { headers } = HTTP.structured(validated({ ...event, data: undefined }));
  return {
    headers: { 'content-type': String(headers['content-type']) },
    body: Buffer.from(JSON.stringify(toJsonEvent(event))),
  };
}

/** The event in the JSON event format: bytes become `data_base64`. */
export function toJsonEvent(event: Event): Event {
  if (!(event.data instanceof Uint8Array)) return event;
  const { data, ...attributes } = event;
  return { ...attributes, data_base64: Buffer.from(event.data).toString('base64') };
}

/**
 * Reads one event of the JSON event format (already parsed JSON). `data_base64` becomes a Buffer, or a value where
 * the content type is JSON, so that an event reads the same in each mode.
 *
 * @throws DandelionError `bad-event`
 */
export function fromJsonEvent(document: unknown): Event {
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw new DandelionError('bad-event', 'A structured CloudEvent is one JSON object.');
  }
  const event: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(document)) {
    if (name === 'data_base64' || name === 'data' || value === null) continue;
    event[name] = checkedAttribute(name, value);
  }
  const { data, data_base64: encoded } = document as { data?: unknown; data_base64?: unknown };
  if (data !== undefined && encoded !== undefined && encoded !== null) {
    throw new DandelionError('bad-event', 'Send either data or data_base64, not both.');
  }
  if (data !== undefined) event.data = data;
  if (encoded !== undefined && encoded !== null) event.data = decodeBase64(encoded, event.datacontenttype);
  return checkedEvent(event);
}

/** True for the media types of a batch, in any case. */
export function isBatchType(contentType: string | undefined): boolean {
  const mediaType = mediaTypeOf(contentType);
  return mediaType === 'application/cloudevents-batch' || mediaType === 'application/cloudevents-batch+json';
}

/**
 * Reads the documents of a batch, each still to be read by {@link fromJsonEvent}.
 *
 * @throws DandelionError `bad-event` when it is no JSON array
 */
export function readBatch(body: Buffer): unknown[] {
  const documents = parseJson(body, 'bad-event');
  if (Array.isArray(documents)) return documents;
  throw new DandelionError('bad-event', 'A batch of CloudEvents is a JSON array.');
}

function decodeStructured(mediaType: string, body: Buffer): EventMessage {
  switch (mediaType) {
    case 'application/cloudevents':
    case 'application/cloudevents+json':
      return { mode: 'structured', events: [fromJsonEvent(parseJson(body, 'bad-event'))] };
    case 'application/cloudevents-batch':
    case 'application/cloudevents-batch+json':
      return { mode: 'batched', events: readBatch(body).map(fromJsonEvent) };
    default:
      throw new DandelionError(
        'unsupported-media-type',
        `${mediaType} is not read here; send application/cloudevents+json.`,
      );
  }
}

function decodeBinary(headers: IncomingHttpHeaders, mediaType: string, body: Buffer): Event {
  const event: Record<string, unknown> = {};
  for (const header in headers) {
    if (!header.startsWith('ce-')) continue;
    const name = header.slice(3);
    if (NOT_HEADERS.has(name)) throw new DandelionError('bad-event', `The header ${header} is not allowed.`);
    event[name] = checkedAttribute(name, percentDecode(header, String(headers[header])));
  }
  const contentType = headers['content-type'];
  if (contentType !== undefined) event.datacontenttype = contentType;
  const data = parseBody(mediaType, body, 'bad-event');
  if (data !== undefined) event.data = data;
  return checkedEvent(event);
}

function decodeBase64(encoded: unknown, contentType: unknown): unknown {
  if (typeof encoded !== 'string' || !base64.test(encoded)) {
    throw new DandelionError('bad-event', 'data_base64 is not base64.');
  }
  const bytes = Buffer.from(encoded, 'base64');
  const mediaType = mediaTypeOf(typeof contentType === 'string' ? contentType : undefined);
  return isJsonType(mediaType) ? parseJson(bytes, 'bad-event') : bytes;
}

function parseJson(body: Buffer, code: 'bad-request' | 'bad-event'): unknown {
  if (!isUtf8(body)) throw new DandelionError(code, 'The body says it is JSON and is not UTF-8.');
  try {
    return JSON.parse(body.toString());
  } catch (error) {
    throw new DandelionError(code, `The body says it is JSON and is not: ${(error as Error).message}.`);
  }
}

/**
 * The package checks names, types and URIs; whatever it finds is the function's fault, not the caller's. Times it
 * parses, and so refuses leap seconds.
 */
function validated(event: Event): CloudEvent<unknown> {
  try {
    if (event.time !== undefined && !isTimestamp(event.time))
      throw new TypeError('time is no RFC 3339 timestamp');
    return new CloudEvent<unknown>({ ...event, time: undefined });
  } catch (error) {
    const reason = error instanceof Error ? error.message.replaceAll(/\s+/g, ' ') : String(error);
    throw new DandelionError('bad-result', `The function made an invalid CloudEvent: ${reason}.`, {
      cause: error,
    });
  }
}

function dataBytes(event: Event): Buffer {
  if (event.data instanceof Uint8Array) return Buffer.from(event.data);
  const isText = typeof event.data === 'string' && !isJsonType(mediaTypeOf(event.datacontenttype));
  if (isText && event.datacontenttype !== undefined) return Buffer.from(event.data as string);
  return Buffer.from(JSON.stringify(event.data));
}

/** Space, quote, percent and everything outside printable ASCII (HTTP binding, section 3.1.3.2). */
function percentEncode(value: string): string {
  return value.toWellFormed().replace(/[^\x21\x23\x24\x26-\x7e]+/gu, (text) =>
    Buffer.from(text)
      .toString('hex')
      .toUpperCase()
      .replace(/../g, (byte) => `%${byte}`),
  );
}

function percentDecode(header: string, value: string): string {
  if (hasOtherThanAscii(value)) {
    throw new DandelionError('bad-event', `Percent-encode the header ${header}: headers are plain ASCII.`);
  }
  const bare = value.startsWith('"') ? unquote(value) : value;
  if (!bare.includes('%')) return bare;
  try {
    return bare.replace(/(?:%[0-9a-fA-F]{2})+/g, decodeURIComponent);
  } catch {
    throw new DandelionError('bad-event', `The header ${header} is not percent-encoded UTF-8.`);
  }
}

/** Older senders quote values with spaces instead of encoding them (RFC 7230, section 3.2.6). */
function unquote(value: string): string {
  return value.length > 1 && value.endsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value;
}

function hasOtherThanAscii(value: string): boolean {
  for (let index = 0; index < value.length; index++) if (value.charCodeAt(index) > 0x7e) return true;
  return false;
}
