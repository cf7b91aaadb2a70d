import { DandelionError, type ErrorCode } from '../../shared/errors.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import type { IngestSettings } from './config.ts';

/** A labelled photo that can be read. */
export interface PhotoEntry {
  kind: 'photo';
  /** How the source names it: address, path or name inside the archive. */
  source: string;
  label: string;
  /** @throws DandelionError saying why this photo cannot be had */
  open(): Promise<Uint8Array>;
}

/** Something in the source that cannot become a photo: a bad line, a link out of the folder, a stray file. */
export interface FaultyEntry {
  kind: 'fault';
  source: string;
  code: ErrorCode;
  reason: string;
}

export type SourceEntry = PhotoEntry | FaultyEntry;

/** A source of labelled photos, read one entry at a time. */
export interface OpenSource {
  entries: AsyncIterable<SourceEntry>;
  /** Entries to come, where the source can tell beforehand; otherwise undefined. */
  total: number | undefined;
  /** Frees files; to be called once reading is over. */
  close(): Promise<void>;
}

/** What reading a source may use. */
export interface SourceAccess {
  settings: IngestSettings;
  objects: ObjectStore;
  signal: AbortSignal;
}

/** Gives an error that ends the step the name of the source it is about. */
export function aboutSource(error: unknown, what: string): unknown {
  if (!(error instanceof DandelionError)) return error;
  const { code, extra, retryAfterMs } = error;
  return new DandelionError(code, `${what}: ${error.message}`, { cause: error, extra, retryAfterMs });
}
