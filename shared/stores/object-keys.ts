import { DandelionError } from '../errors.ts';

/** S3's own limit, in bytes of UTF-8. */
const LONGEST_KEY_BYTES = 1024;
/** No part is empty or hidden (`.` and `..` among them), and nothing in it means something to a file system. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const keyPattern = /^[^./\\\0-\x1f\x7f][^/\\\0-\x1f\x7f]*(\/[^./\\\0-\x1f\x7f][^/\\\0-\x1f\x7f]*)*$/;

/**
 * Checks a key of an object: names separated by `/`, the same for folders and S3.
 *
 * @throws DandelionError `bad-request`
 */
export function checkKey(key: string): void {
  if (keyPattern.test(key) && Buffer.byteLength(key) <= LONGEST_KEY_BYTES) return;
  throw new DandelionError('bad-request', `${JSON.stringify(key)} is not an object key.`);
}

/** The error of an object that is not there. */
export function objectMissing(key: string): DandelionError {
  return new DandelionError('object-missing', `The object store has no "${key}".`);
}
