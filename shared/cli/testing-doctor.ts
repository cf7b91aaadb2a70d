import { execFile } from 'node:child_process';
import { join } from 'node:path';
import type { NamedFinding } from './doctor/examination.ts';

/** Runs `npm run doctor` in a process of its own, with these settings alone. */
export function runDoctor(
  dataDir: string,
  env: Record<string, string>,
  words: string[] = [],
): Promise<{ code: unknown; stdout: string; stderr: string }> {
  const { PATH = '' } = process.env;
  return new Promise((resolve) => {
    const script = [join(import.meta.dirname, 'doctor.ts'), '--data', dataDir, ...words];
    const options = { env: { PATH, NODE_NO_WARNINGS: '1', ...env } };
    execFile(process.execPath, script, options, (error, stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stdout, stderr }),
    );
  });
}

/**
 * What the doctor found, by name.
 *
 * @throws Error when it said anything else
 */
export async function examine(dataDir: string, env: Record<string, string>) {
  const { code, stdout, stderr } = await runDoctor(dataDir, env, ['--json']);
  if (stderr !== '') throw new Error(stderr);
  const report = JSON.parse(stdout) as { ok: boolean; checks: NamedFinding[] };
  return { code, ...report, of: (name: string) => report.checks.find((finding) => finding.name === name) };
}
