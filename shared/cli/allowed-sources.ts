import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Environment } from '../config.ts';

const names = ['INGEST_FILE_ROOTS', 'INGEST_ALLOWED_HOSTS'] as const;
const stored = z.partialRecord(z.enum(names), z.array(z.string()));

/**
 * The folders and hosts that ingest may read: those of this start, those of the surroundings, and those of earlier
 * starts with the same data folder, because a run that was interrupted then goes on now.
 */
export async function allowSources(
  dataDir: string,
  wanted: Environment,
  surroundings: Environment = process.env,
): Promise<Record<string, string>> {
  const path = join(dataDir, 'allowed-sources.json');
  const earlier = await readAllowed(path);
  const allowed: z.output<typeof stored> = {};
  for (const name of names) {
    const items = [...(earlier[name] ?? []), ...(wanted[name]?.split(',') ?? [])];
    if (items.length > 0) allowed[name] = [...new Set(items)].sort();
  }
  await mkdir(dataDir, { recursive: true });
  await writeFile(`${path}.draft`, `${JSON.stringify(allowed, null, 2)}\n`);
  await rename(`${path}.draft`, path);
  return Object.fromEntries(
    names.map((name) => [
      name,
      [...(allowed[name] ?? []), surroundings[name] ?? ''].filter(Boolean).join(','),
    ]),
  );
}

async function readAllowed(path: string): Promise<z.output<typeof stored>> {
  try {
    return stored.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return {};
  }
}
