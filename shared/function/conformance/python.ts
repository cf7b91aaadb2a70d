import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** The SDK and all it needs. */
const PACKAGES = [
  'cloudevents==2.2.0',
  'deprecation==2.1.0',
  'packaging==25.0',
  'python-dateutil==2.9.0.post0',
  'six==1.17.0',
];
const root = fileURLToPath(new URL('../../..', import.meta.url));
const folder = join(root, 'node_modules/.cache/dandelion', PACKAGES[0]?.replaceAll('==', '-') ?? '');
const INSTALL_WITHIN_MS = 120_000;
const run = promisify(execFile);

/** A Python interpreter that has the SDK, or why there is none. */
export type Python =
  | { interpreter: string; unavailable?: undefined }
  | { interpreter?: undefined; unavailable: string };

/** Makes an environment with the pinned SDK on first use; later runs find it there. */
export async function preparePython(): Promise<Python> {
  const interpreter = join(folder, process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python');
  if (existsSync(interpreter)) return { interpreter };
  // Filled under another name, so that a run that was cut off leaves nothing that looks ready.
  const draft = `${folder}.${process.pid}`;
  try {
    await mkdir(folder, { recursive: true }).then(() => rm(folder, { recursive: true }));
    await run('python3', ['-m', 'venv', draft], { timeout: INSTALL_WITHIN_MS });
    const draftInterpreter = interpreter.replace(folder, draft);
    const install = [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--no-deps',
      '--disable-pip-version-check',
      ...PACKAGES,
    ];
    await run(draftInterpreter, install, { timeout: INSTALL_WITHIN_MS });
    await rename(draft, folder);
    return { interpreter };
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    return { unavailable: lastLine(error) };
  }
}

function lastLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message?: string };
  const lines = `${stderr?.trim() || message || String(error)}`.split('\n');
  return lines.at(-1) ?? '';
}
