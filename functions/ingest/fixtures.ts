import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { crc32, deflateRawSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { readConfig } from '../../shared/config.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { ingestSettings } from './config.ts';
import type { SourceAccess } from './entries.ts';
import { openSource } from './source.ts';

/** A file of an archive made for a test. */
export interface PackedFile {
  name: string;
  bytes?: Uint8Array;
  linkTo?: string;
  /** zip only: flags the entry as encrypted. */
  encrypted?: boolean;
  /** zip only: the unpacked size that the archive claims. */
  claimedSize?: number;
}

/** Writes a zip archive (APPNOTE 4.3) byte by byte, so that a test can also write one that lies. */
export function zipOf(files: readonly PackedFile[]): Buffer {
  const [bodies, directory]: [Buffer[], Buffer[]] = [[], []];
  let offset = 0;
  for (const { name, bytes = Buffer.alloc(0), linkTo, encrypted = false, claimedSize } of files) {
    const content = linkTo === undefined ? bytes : Buffer.from(linkTo);
    const packed = deflateRawSync(content);
    const nameBytes = Buffer.from(name);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(0x800 | (encrypted ? 1 : 0), 2);
    common.writeUInt16LE(8, 4);
    common.writeUInt32LE(crc32(content), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(claimedSize ?? content.length, 18);
    common.writeUInt16LE(nameBytes.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, nameBytes, packed]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(((linkTo === undefined ? 0o100644 : 0o120777) << 16) >>> 0, 6);
    tail.writeUInt32LE(offset, 10);
    directory.push(Buffer.from('PK\x01\x02'), Buffer.from([20, 3]), common, tail, nameBytes);
    bodies.push(local);
    offset += local.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(files.length, 4);
  end.writeUInt16LE(files.length, 6);
  end.writeUInt32LE(size, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...bodies, ...directory, Buffer.from('PK\x05\x06'), end]);
}

/** Writes a tar archive. */
export async function tarOf(files: readonly PackedFile[]): Promise<Buffer> {
  const archive = pack();
  for (const { name, bytes = Buffer.alloc(0), linkTo } of files) {
    if (linkTo !== undefined) archive.entry({ name, type: 'symlink', linkname: linkTo });
    else if (name.endsWith('/')) archive.entry({ name, type: 'directory' });
    else archive.entry({ name }, bytes);
  }
  archive.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of archive) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

/** Settings for a test; nothing else of the environment counts. */
export function accessWith(
  settings: Record<string, string>,
  signal = new AbortController().signal,
): SourceAccess {
  const stores = { DATABASE_URL: 'postgres://none', OBJECTS_DIR: 'none', TRACKING_DIR: 'none' };
  const read = readConfig(ingestSettings, { ...stores, ...settings });
  return { settings: read, objects: openObjects(read), signal };
}

/** Everything in a source: photos with their bytes read, and faults. */
export async function readAll(
  source: { kind: 'manifest' | 'folder' | 'archive'; uri: string },
  access: SourceAccess,
): Promise<{
  total: number | undefined;
  photos: { source: string; label: string; text: string }[];
  faults: { source: string; code: string; reason: string }[];
}> {
  const opened = await openSource(source, access);
  const photos: { source: string; label: string; text: string }[] = [];
  const faults: { source: string; code: string; reason: string }[] = [];
  try {
    for await (const entry of opened.entries) {
      if (entry.kind === 'fault') {
        faults.push({ source: entry.source, code: entry.code, reason: entry.reason });
        continue;
      }
      await entry.open().then(
        (bytes) =>
          photos.push({ source: entry.source, label: entry.label, text: Buffer.from(bytes).toString() }),
        (error) => faults.push({ source: entry.source, code: error.code, reason: error.message }),
      );
    }
  } finally {
    await opened.close();
  }
  return { total: opened.total, photos, faults };
}

/** A web server of a test, with a count of requests by path. */
export interface TestSite {
  origin: string;
  hits: Map<string, number>;
  close(): Promise<void>;
}

/** Serves `answer` on a free port of this machine. */
export async function startSite(answer: RequestListener): Promise<TestSite> {
  const hits = new Map<string, number>();
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    hits.set(path, (hits.get(path) ?? 0) + 1);
    answer(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, hits, close };
}
