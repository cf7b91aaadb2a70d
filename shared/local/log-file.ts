import { appendFileSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * A log that never grows beyond twice its limit: the file and the one before it. Lines that cannot be written, as on
 * a full disk, are dropped: they are worth less than what writes them.
 */
export interface LogFile {
  readonly path: string;
  append(chunk: Uint8Array | string): void;
}

const defaultLimitBytes = 10_000_000;

/** Opens a log for appending; at `limitBytes` it becomes `{path}.1`, which replaces the one before. */
export function openLogFile(path: string, limitBytes: number = defaultLimitBytes): LogFile {
  mkdirSync(dirname(path), { recursive: true });
  let sizeBytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  return {
    path,
    append(chunk) {
      try {
        if (sizeBytes > 0 && sizeBytes + chunk.length > limitBytes) {
          renameSync(path, `${path}.1`);
          sizeBytes = 0;
        }
        appendFileSync(path, chunk);
        sizeBytes += chunk.length;
      } catch {
        // Dropped.
      }
    },
  };
}
