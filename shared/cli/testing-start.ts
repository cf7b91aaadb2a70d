import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Report } from './report.ts';

/** `npm start` as a process of its own, as tests see it. */
export interface Started {
  child: ChildProcess;
  /** What it wrote to the terminal so far, both streams. */
  output(): string;
  /** Resolves with the exit code; null when a signal ended it. */
  ended: Promise<number | null>;
}

const children = new Set<ChildProcess>();

/** Ends what a test that failed left running. */
export function endStarted(): void {
  for (const child of children) child.kill('SIGKILL');
}

/** Starts what `npm start` starts after the build, with these words behind it. */
export function launchStart(words: string[], env: Record<string, string | undefined> = {}): Started {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'start.ts'), ...words], {
    env: { ...process.env, DATABASE_URL: '', NODE_NO_WARNINGS: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  child.once('close', () => children.delete(child));
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
  }
  const ended = once(child, 'close').then(([code]) => code as number | null);
  return { child, output: () => text, ended };
}

/** Runs `npm start -- --once --json` to its end. */
export async function runStart(
  folder: string,
  words: string[],
  env: Record<string, string | undefined> = {},
): Promise<{ code: number | null; output: string; report: Report | undefined }> {
  const json = join(folder, 'report.json');
  const fixed = ['--once', '--port', '0', '--json', json, '--data', join(folder, 'data')];
  const started = launchStart([...fixed, ...words], env);
  const code = await started.ended;
  const report = await readFile(json, 'utf8').then(
    (text) => JSON.parse(text) as Report,
    () => undefined,
  );
  return { code, output: started.output(), report };
}
