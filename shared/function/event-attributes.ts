import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';

/**
 * What attributes of a CloudEvent may be called and hold.
 *
 * Source: CloudEvents 1.0.2, Context Attributes.
 */
export const REQUIRED_ATTRIBUTES = ['id', 'source', 'type', 'specversion'] as const;
const attributeName = /^[a-z0-9]+$/;
const rfc3339 =
  /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/i;
/** RFC 3986: the characters of a URI reference, and a scheme where it must be absolute. */
const uriReference = /^(?:[\w.~:/?#[\]@!$&'()*+,;=-]|%[0-9a-fA-F]{2})+$/;
const scheme = /^[a-zA-Z][a-zA-Z0-9+.-]*:/;
/** RFC 2046: type and subtype; whatever parameters follow. */
const mediaTypeForm = /^[!#$%&'*+.^_`|~\w-]+\/[!#$%&'*+.^_`|~\w-]+\s*(;|$)/;
/** What a String may not hold (CloudEvents 1.0.2, Type System); lone surrogates match `Cs`. */
const forbiddenText = /[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u;
const INTEGER_LIMIT = 2 ** 31;

/**
 * One attribute as it came, when name and type are allowed.
 *
 * @throws DandelionError `bad-event`
 */
export function checkedAttribute(name: string, value: unknown): string | number | boolean {
  if (!attributeName.test(name)) {
    throw new DandelionError(
      'bad-event',
      `"${name}" is no attribute name: use lower-case letters and digits.`,
    );
  }
  if (typeof value === 'string') {
    if (!isForbidden(value)) return value;
    throw new DandelionError('bad-event', `The attribute ${name} holds a character that is not allowed.`);
  }
  if (typeof value === 'boolean' || isInteger(value)) return value;
  throw new DandelionError(
    'bad-event',
    `The attribute ${name} must be a string, a whole number of 32 bits or a boolean.`,
  );
}

function isInteger(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= -INTEGER_LIMIT && Number(value) < INTEGER_LIMIT;
}

/**
 * The event, when it has all attributes that an event needs and those it has are of their form.
 *
 * @throws DandelionError `bad-event` naming the attribute
 */
export function checkedEvent(event: Record<string, unknown>): Event {
  for (const name of REQUIRED_ATTRIBUTES) {
    if (typeof event[name] === 'string' && event[name] !== '') continue;
    throw new DandelionError('bad-event', `The CloudEvent lacks the attribute ${name}.`);
  }
  if (event.specversion !== '1.0') {
    throw new DandelionError(
      'bad-event',
      `CloudEvents ${String(event.specversion)} is not read here; send 1.0.`,
    );
  }
  checkForm(event, 'source', 'a URI reference', (text) => uriReference.test(text));
  checkForm(event, 'time', 'an RFC 3339 timestamp', isTimestamp);
  checkForm(event, 'subject', 'a text that is not empty', (text) => text !== '');
  checkForm(event, 'datacontenttype', 'a media type', (text) => mediaTypeForm.test(text));
  checkForm(event, 'dataschema', 'an absolute URI', (text) => uriReference.test(text) && scheme.test(text));
  return event as Event;
}

function checkForm(
  event: Record<string, unknown>,
  name: string,
  form: string,
  fits: (text: string) => boolean,
): void {
  const value = event[name];
  if (value === undefined || (typeof value === 'string' && fits(value))) return;
  throw new DandelionError('bad-event', `The attribute ${name} is not ${form}.`);
}

/** True for RFC 3339 timestamps. */
export function isTimestamp(text: string): boolean {
  return rfc3339.test(text);
}

/** The regular expression is slow, and nearly all attributes are plain ASCII. */
function isForbidden(value: string): boolean {
  for (let index = 0; index < value.length; index++) {
    const code = value.charCodeAt(index);
    if (code < 0x20 || code > 0x7e) return forbiddenText.test(value);
  }
  return false;
}
