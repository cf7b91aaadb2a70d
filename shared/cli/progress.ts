import { MultiBar, type SingleBar } from 'cli-progress';
import { type PipelineState, type PipelineStep, pipelineFunctions } from '../local/pipeline.ts';

/** Shows how far the pipeline is. */
export interface ProgressView {
  update(state: PipelineState): void;
  stop(): void;
}

const widestName = Math.max(...pipelineFunctions.map((name) => name.length));
const scale = 1000;

/** Bars in a terminal; elsewhere (a file, a log) one line for each change of a step. */
export function createProgressView(stream: NodeJS.WriteStream): ProgressView {
  return stream.isTTY ? createBars(stream) : createLines(stream);
}

function createBars(stream: NodeJS.WriteStream): ProgressView {
  const bars = new MultiBar({
    stream,
    format: '  {name} [{bar}] {text}',
    barCompleteChar: '=',
    barIncompleteChar: ' ',
    barsize: 24,
    hideCursor: true,
    fps: 8,
    emptyOnZero: true,
  });
  const shown = new Map<string, SingleBar>();
  const payload = (name: string, text: string) => {
    // A line that wraps would be drawn twice.
    const room = Math.max(10, (stream.columns || 80) - widestName - 34);
    return { name: name.padEnd(widestName), text: text.length > room ? `${text.slice(0, room - 1)}…` : text };
  };
  for (const name of pipelineFunctions) shown.set(name, bars.create(scale, 0, payload(name, '')));
  return {
    update({ steps }) {
      for (const step of steps) {
        const value = Math.round(shareOf(step) * scale);
        shown.get(step.function)?.update(value, payload(step.function, textOf(step)));
      }
    },
    stop: () => bars.stop(),
  };
}

function createLines(stream: NodeJS.WriteStream): ProgressView {
  const last = new Map<string, string>();
  return {
    update({ steps }) {
      for (const step of steps) {
        const key = `${step.status} ${step.attempt}`;
        if (step.status === 'waiting' || last.get(step.function) === key) continue;
        last.set(step.function, key);
        const text = step.status === 'running' ? 'running' : textOf(step);
        const again = step.attempt > 1 && step.status === 'running' ? ` (attempt ${step.attempt})` : '';
        stream.write(`  ${step.function.padEnd(widestName)}  ${text}${again}\n`);
      }
    },
    stop: () => {},
  };
}

function shareOf({ status, progress }: PipelineStep): number {
  if (status === 'succeeded') return 1;
  if (status !== 'running' || progress === null || progress.total <= 0) return 0;
  return Math.min(1, progress.done / progress.total);
}

function textOf(step: PipelineStep): string {
  const { progress } = step;
  switch (step.status) {
    case 'waiting':
      return '';
    case 'queued':
      return step.problem === null ? 'starting' : `trying again: ${step.problem.detail}`;
    case 'running':
      return progress === null ? 'running' : `${progress.done}/${progress.total} ${progress.note}`.trim();
    case 'failed':
      return `failed: ${step.problem?.title ?? 'see its log'}`;
    case 'succeeded':
      return step.reused ? 'done before' : `done in ${formatDuration(durationMsOf(step) ?? 0)}`;
  }
}

/** Between start and end of the last attempt; `undefined` while it is not over. */
export function durationMsOf(times: {
  startedAt: string | null;
  finishedAt: string | null;
}): number | undefined {
  if (times.startedAt === null || times.finishedAt === null) return undefined;
  return Math.max(0, Date.parse(times.finishedAt) - Date.parse(times.startedAt));
}

/** As `850 ms`, `12.3 s` or `2 min 5 s`. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 1000) return `${Math.round(durationMs)} ms`;
  if (durationMs < 60_000) return `${(durationMs / 1000).toFixed(1)} s`;
  const seconds = Math.round(durationMs / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
