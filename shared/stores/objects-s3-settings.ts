import type { ObjectSettings } from '../config.ts';

/** The settings of a store on an S3 server, whichever client reads it. */
export type ServerSettings = Partial<ObjectSettings> & {
  S3_ENDPOINT: string;
  S3_BUCKET: string;
  S3_REGION: string;
};

export const CONNECT_WITHIN_MS = 3000;
/** A connection on which nothing moves for so long is given up. */
export const SILENT_FOR_MS = 20_000;
