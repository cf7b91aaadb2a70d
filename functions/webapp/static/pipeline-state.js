import { formatCount, formatDuration } from './format.js';

/**
 * @typedef {'waiting' | 'queued' | 'running' | 'succeeded' | 'failed'} StepStatus
 * @typedef {{ function: string, status: StepStatus, progress: { done: number, total: number, note: string } | null,
 *   startedAt: string | null, finishedAt: string | null, reused: boolean,
 *   problem: { title: string, detail: string, code: string } | null }} Step
 * @typedef {import('../../../shared/events.ts').MetricsSummary} MetricsSummary
 * @typedef {{ name: string, version: string, metrics: MetricsSummary | null,
 *   dataset: { version: string, images: number, classes: Record<string, number> } | null }} Champion
 * @typedef {{ steps: Step[], champion: Champion | null }} PipelineState
 */

const statuses = ['waiting', 'queued', 'running', 'succeeded', 'failed'];

/**
 * Reads the pipeline's state; undefined when it is something else (another server's page at this address).
 *
 * @param {any} body
 * @returns {PipelineState | undefined}
 */
export function readPipeline(body) {
  if (!Array.isArray(body?.steps)) return undefined;
  const known = body.steps.every(
    (/** @type {any} */ step) => typeof step?.function === 'string' && statuses.includes(step.status),
  );
  return known ? { steps: body.steps, champion: body.champion ?? null } : undefined;
}

/**
 * What the pipeline is doing, in a few words.
 *
 * @param {PipelineState} state
 * @returns {{ mood: 'idle' | 'active' | 'done' | 'failed', text: string }}
 */
export function describePipeline({ steps, champion }) {
  const failed = steps.find((step) => step.status === 'failed');
  if (failed !== undefined) return { mood: 'failed', text: `Stopped at ${failed.function}` };
  const active = steps.findIndex((step) => step.status === 'running' || step.status === 'queued');
  if (active >= 0) return { mood: 'active', text: `Step ${active + 1} of ${steps.length}` };
  const next = steps.findIndex((step) => step.status === 'waiting');
  if (next === -1) return { mood: 'done', text: totalText(steps) };
  if (next > 0) return { mood: 'active', text: `Next: ${steps[next]?.function}` };
  return { mood: 'idle', text: champion === null ? 'Not started yet' : 'Idle' };
}

/** @param {Step[]} steps */
function totalText(steps) {
  const durations = steps.map(durationMsOf).filter((duration) => duration !== undefined);
  if (durations.length === 0) return 'Done';
  return `Done in ${formatDuration(durations.reduce((sum, duration) => sum + duration, 0))}`;
}

/**
 * @param {Step} step
 * @returns {number | undefined} between start and end, both by the server's clock
 */
function durationMsOf(step) {
  if (step.reused || !step.startedAt || !step.finishedAt) return undefined;
  const durationMs = Date.parse(step.finishedAt) - Date.parse(step.startedAt);
  return Number.isFinite(durationMs) && durationMs >= 0 ? durationMs : undefined;
}

/**
 * The few words under a step's name.
 *
 * @param {Step} step
 */
export function describeStep(step) {
  if (step.status === 'running') return shareOf(step) === undefined ? 'working' : `${percentOf(step)}%`;
  if (step.status === 'queued') return 'starting';
  if (step.status === 'failed') return 'failed';
  if (step.status === 'waiting') return 'waiting';
  if (step.reused) return 'reused';
  const durationMs = durationMsOf(step);
  return durationMs === undefined ? 'done' : formatDuration(durationMs);
}

/**
 * How far a step is, 0 to 1; undefined when it cannot say.
 *
 * @param {Step} step
 */
export function shareOf(step) {
  if (step.status === 'succeeded') return 1;
  if (step.status === 'waiting' || step.status === 'queued') return 0;
  if (!step.progress || step.progress.total <= 0) return undefined;
  return Math.min(1, step.progress.done / step.progress.total);
}

/** @param {Step} step */
function percentOf(step) {
  // Rounded down: 100% is said when the step is done.
  return Math.floor((shareOf(step) ?? 0) * 100);
}

/**
 * One line about a running step: its own note and how far it is.
 *
 * @param {Step} step
 */
export function progressText(step) {
  if (!step.progress || step.progress.total <= 0) return step.progress?.note || `${step.function} is working`;
  const { done, total, note } = step.progress;
  return `${note || step.function}: ${formatCount(done)} of ${formatCount(total)}`;
}
