import { mkdir, rename, writeFile } from 'node:fs/promises';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';
import { quietUpTo } from './busy.ts';
import type { Stage } from './stage.ts';
import { meetsGoal, type Row } from './table.ts';

/** Under what conditions the figures came about. */
export interface Conditions {
  startedAt: string;
  machine: { processor: string; cores: number; memoryBytes: number; system: string };
  /** Share of the processors, 0 to 1, that others used before the bench began. */
  busyWithOthers: number;
  node: string;
  photos: { count: number; from: string; classified: { sizeBytes: number; label: string } };
  model: { name: string; version: string; backbone: string; engine: string };
  runs: number;
  quick: boolean;
}

const description = z.object({ engine: z.string() });

export async function describeConditions(stage: Stage, busyWithOthers: number): Promise<Conditions> {
  const { model, options, photo, photos, platform: running } = stage;
  const response = await fetch(`${running.gatewayUrl}/function/predict/`);
  const { engine } = description.parse(await response.json());
  return {
    startedAt: new Date().toISOString(),
    machine: {
      processor: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      memoryBytes: totalmem(),
      system: `${platform()} ${arch()} ${release()}`,
    },
    busyWithOthers,
    node: process.version,
    photos: {
      count: photos.length,
      from: options.images === undefined ? 'drawn' : 'a folder',
      classified: { sizeBytes: photo.sizeBytes, label: photo.label },
    },
    model: { name: model.name, version: model.version, backbone: model.extractor.id, engine },
    runs: options.runs,
    quick: options.quick,
  };
}

/** The head of the table. */
export function formatConditions(conditions: Conditions): string {
  const { machine, model, photos } = conditions;
  const busy = conditions.busyWithOthers;
  const gigabytes = (machine.memoryBytes / 1e9).toFixed(0);
  return [
    `${machine.processor}, ${machine.cores} cores, ${gigabytes} GB, ${machine.system}`,
    `Node ${conditions.node}; backbone ${model.backbone}; engine ${model.engine}; model ${model.version}`,
    `${photos.count} photos (${photos.from}); the one classified has ${photos.classified.sizeBytes} bytes`,
    `medians of ${conditions.runs} runs${conditions.quick ? ', quick' : ''}; a ratio is between things measured in turns in this run`,
    'every server that answers photos was warmed up alike before the first burst',
    ...(busy <= quietUpTo
      ? []
      : [
          `NOT A QUIET MACHINE: others used ${Math.round(busy * 100)} % of it before the start, so trust no figure far.`,
        ]),
  ].join('\n');
}

/** Writes conditions and figures as JSON, whole or not at all. */
export async function writeFigures(
  path: string,
  conditions: Conditions,
  rows: readonly Row[],
  failed: readonly string[],
): Promise<void> {
  const figures = rows.map((line) => ({ ...line, met: meetsGoal(line) ?? null }));
  const document = { schemaVersion: 1, conditions, rows: figures, failed };
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.draft`, `${JSON.stringify(document, null, 2)}\n`);
    await rename(`${path}.draft`, path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DandelionError('bad-config', `The figures cannot be written to ${path}: ${why}.`, { cause });
  }
}
