import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { airflowDir } from './environment.ts';

/** What Airflow's processes inherit. Python that may not keep compiled modules compiles Airflow at every start. */
export function surroundings(): Record<string, string | undefined> {
  const { PYTHONDONTWRITEBYTECODE: _, ...others } = process.env;
  return others;
}

/** Runs the interpreter to its end, its words on our terminal. @returns its exit code */
export async function runPython(
  python: string,
  words: string[],
  env: Readonly<Record<string, string>>,
): Promise<number> {
  const child = spawn(python, words, {
    cwd: airflowDir,
    env: { ...surroundings(), ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}
