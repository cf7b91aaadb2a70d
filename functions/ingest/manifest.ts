import { dirname, resolve } from 'node:path';
import { isBucketAddress, readObject } from './bucket.ts';
import { downloadManifest, downloadPhoto, isWebAddress } from './download.ts';
import { aboutSource, type OpenSource, type SourceAccess, type SourceEntry } from './entries.ts';
import { pathOfFileUrl, readFileCapped, resolveBeneath } from './local-files.ts';
import { type ManifestRow, parseManifest } from './manifest-csv.ts';

/**
 * Opens a CSV manifest. Entries are web addresses or paths relative to the manifest itself.
 *
 * @throws DandelionError `bad-manifest`, `forbidden`, or what downloading it throws
 */
export async function openManifest(uri: string, access: SourceAccess): Promise<OpenSource> {
  const from = isWebAddress(uri) ? fromWeb : isBucketAddress(uri) ? fromBucket : fromFile;
  const manifest = await from(uri, access).catch((error: unknown) => {
    throw aboutSource(error, `The manifest ${uri} cannot be read`);
  });
  const { rows, faults } = parseManifest(manifest.bytes);
  return {
    total: rows.length + faults.length,
    close: async () => {},
    entries: (async function* (): AsyncIterable<SourceEntry> {
      for (const { line, url, reason } of faults) {
        const source = url === '' ? `line ${line}` : url;
        yield { kind: 'fault', source, code: 'bad-manifest', reason: `Line ${line}: ${reason}` };
      }
      for (const row of rows) {
        yield { kind: 'photo', source: row.url, label: row.label, open: () => manifest.open(row) };
      }
    })(),
  };
}

interface Manifest {
  bytes: Uint8Array;
  open(row: ManifestRow): Promise<Uint8Array>;
}

async function fromWeb(uri: string, access: SourceAccess): Promise<Manifest> {
  const { bytes, finalUrl } = await downloadManifest(uri, access);
  return {
    bytes,
    // What an address of the web names is never a file of this machine: fetching refuses file:// and the like.
    open: async ({ url }) => downloadPhoto(URL.parse(url, finalUrl)?.href ?? url, access),
  };
}

async function fromBucket(uri: string, access: SourceAccess): Promise<Manifest> {
  const bytes = await readObject(uri, access.settings.INGEST_MAX_MANIFEST_BYTES, access.objects);
  return {
    bytes,
    open: async ({ url }) => {
      const address = URL.parse(url, uri)?.href ?? url;
      if (!isBucketAddress(address)) return downloadPhoto(address, access);
      return readObject(address, access.settings.INGEST_MAX_PHOTO_BYTES, access.objects);
    },
  };
}

async function fromFile(uri: string, access: SourceAccess): Promise<Manifest> {
  const roots = access.settings.INGEST_FILE_ROOTS;
  const path = await resolveBeneath(pathOfFileUrl(uri), roots);
  const bytes = await readFileCapped(path, access.settings.INGEST_MAX_MANIFEST_BYTES);
  return {
    bytes,
    open: async ({ url }) => {
      const isAddress = /^[a-z][a-z0-9+.-]*:\/\//i.test(url);
      if (isAddress && !/^file:/i.test(url)) return downloadPhoto(url, access);
      const photo = isAddress ? pathOfFileUrl(url) : resolve(dirname(path), url);
      return readFileCapped(await resolveBeneath(photo, roots), access.settings.INGEST_MAX_PHOTO_BYTES);
    },
  };
}
