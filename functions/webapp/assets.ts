import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';

/** One answer of the page, ready to send. */
export interface Asset {
  bytes: Buffer;
  mediaType: string;
  /** Strong validator (RFC 9110, 8.8.3): quoted digest of the bytes. */
  etag: string;
}

const mediaTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Wraps bytes with their media type and validator. */
export function createAsset(bytes: Buffer, mediaType: string): Asset {
  const digest = createHash('sha256').update(bytes).digest('base64url').slice(0, 22);
  return { bytes, mediaType, etag: `"${digest}"` };
}

/**
 * Reads a flat folder of page files into memory, keyed by the path they are served at; `index.html` is `/`.
 * Files of other types than a page's are left out, so an editor's leftover is never published.
 */
export async function readAssets(folder: string): Promise<Map<string, Asset>> {
  const names = (await readdir(folder)).sort();
  const assets = new Map<string, Asset>();
  for (const name of names) {
    const mediaType = mediaTypes[extname(name)];
    if (mediaType === undefined) continue;
    const path = name === 'index.html' ? '/' : `/${name}`;
    assets.set(path, createAsset(await readFile(join(folder, name)), mediaType));
  }
  return assets;
}

/**
 * True when the client holds these very bytes: `If-None-Match` is `*` or lists the validator. The comparison
 * is the weak one, as RFC 9110, 13.1.2 asks; proxies that compress mark validators weak.
 */
export function isFresh(ifNoneMatch: string | string[] | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  const tags = [ifNoneMatch].flat().flatMap((line) => line.split(','));
  return tags.some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag);
}
