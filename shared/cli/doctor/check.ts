import type { DoctorSettings } from './settings.ts';

/** What a look at one service found. */
export interface Finding {
  status: 'ok' | 'not configured' | 'trouble';
  version?: string;
  /** Time of one question and its answer. */
  latencyMs?: number;
  /** Where it is, what is missing, and what to do. */
  detail: string;
  /** How far the server's clock is ahead of ours; negative when behind. */
  clockAheadMs?: number;
  /** Stable code of a trouble (shared/errors.ts). */
  code?: string;
}

/** One part of an installation. Whatever `look` throws is trouble; it changes nothing that lasts. */
export interface Check {
  name: string;
  /** The setting that names the server, where there is one. */
  variable?: keyof DoctorSettings;
  look(settings: DoctorSettings): Promise<Finding>;
}

export function notConfigured(detail: string): Finding {
  return { status: 'not configured', detail };
}

/** An answer with the time it took. */
export async function timed<Answer>(
  ask: () => PromiseLike<Answer>,
): Promise<{ answer: Answer; latencyMs: number }> {
  const start = performance.now();
  const answer = await ask();
  return { answer, latencyMs: Math.round((performance.now() - start) * 10) / 10 };
}
