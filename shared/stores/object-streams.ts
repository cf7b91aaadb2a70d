import { createHash } from 'node:crypto';

/** Bytes on their way into a store. */
export interface Measured {
  bytes: AsyncIterable<Uint8Array>;
  /** Digest (hex SHA-256) and number of the bytes that went through. */
  result(): { digest: string; sizeBytes: number };
  /** What ended the bytes before their time: the source's own error, or why the signal aborted. */
  fault(): unknown;
}

/** Passes the bytes of a source on, measures them, and tells the source's faults from those of the store. */
export function measure(source: AsyncIterable<Uint8Array>, signal?: AbortSignal): Measured {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let fault: unknown;
  const pass = async function* (): AsyncIterable<Uint8Array> {
    try {
      for await (const chunk of source) {
        signal?.throwIfAborted();
        hash.update(chunk);
        sizeBytes += chunk.byteLength;
        yield chunk;
      }
    } catch (error) {
      fault = error;
      throw error;
    }
  };
  return {
    bytes: pass(),
    result: () => ({ digest: hash.digest('hex'), sizeBytes }),
    fault: () => fault,
  };
}

/**
 * Reads a body whole.
 *
 * @throws Error when it ends before its announced size
 */
export async function gather(body: AsyncIterable<Uint8Array>, sizeBytes = 0): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  if (bytes.byteLength >= sizeBytes) return bytes;
  throw new Error(`the answer broke off after ${bytes.byteLength} of ${sizeBytes} bytes`);
}
