import { spawn, spawnSync } from 'node:child_process';
import { DandelionError } from '../../errors.ts';

/** What a command wrote and how it ended. */
export interface Finished {
  status: number;
  stdout: string;
  /** The last line that says something, for a message. */
  reason: string;
}

/** True when a program is there and answers. */
export function isThere(program: string, ...words: string[]): boolean {
  return spawnSync(program, words, { stdio: 'ignore' }).status === 0;
}

/** Runs a command to its end, whatever it is; what it writes is kept, not shown. */
export function run(command: readonly string[], input?: string): Promise<Finished> {
  const [program = '', ...words] = command;
  return new Promise((resolve) => {
    const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += String(chunk);
    });
    child.stderr.on('data', (chunk) => {
      stderr += String(chunk);
    });
    child.once('error', (error) => resolve({ status: 127, stdout, reason: error.message }));
    child.once('close', (code) => resolve({ status: code ?? 1, stdout, reason: lastLine(stderr || stdout) }));
    child.stdin.on('error', () => {});
    child.stdin.end(input ?? '');
  });
}

/** @throws DandelionError `cluster-unavailable` with what the command said last */
export async function must(command: readonly string[], input?: string): Promise<string> {
  const { status, stdout, reason } = await run(command, input);
  if (status === 0) return stdout;
  const shown = command.slice(0, 6).join(' ');
  throw new DandelionError('cluster-unavailable', `${shown}: ${reason || `it ended with ${status}`}`);
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? '';
}
