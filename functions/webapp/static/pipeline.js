import { byId, element } from './dom.js';
import { describePipeline, describeStep, progressText, readPipeline, shareOf } from './pipeline-state.js';

/** @typedef {import('./pipeline-state.js').PipelineState} PipelineState */
/** @typedef {import('./pipeline-state.js').Step} Step */

const RECONNECT_MS = 5000;

/**
 * Follows the pipeline for as long as the page is open: one read, then its event stream.
 *
 * @param {string} url empty: there is nothing to follow
 * @param {(state: PipelineState) => void} onState
 * @param {(live: boolean) => void} onLive tells when the stream breaks and when it is back
 */
export async function followPipeline(url, onState, onLive) {
  if (url === '') return;
  const state = await readOnce(url);
  if (state === 'absent') return;
  if (state !== undefined) onState(state);
  const retry = () => setTimeout(() => followPipeline(url, onState, onLive), RECONNECT_MS);
  if (state === undefined) {
    onLive(false);
    retry();
    return;
  }
  const stream = new EventSource(url);
  stream.onopen = () => onLive(true);
  stream.onmessage = (message) => {
    const next = parse(message.data);
    if (next !== undefined) onState(next);
  };
  stream.onerror = () => {
    onLive(false);
    // A browser reconnects by itself after a cut, but gives up for good after an error status.
    if (stream.readyState === EventSource.CLOSED) retry();
  };
}

/**
 * @param {string} url
 * @returns {Promise<PipelineState | 'absent' | undefined>} undefined: no answer now, perhaps later
 */
async function readOnce(url) {
  try {
    const response = await fetch(url, { headers: { accept: 'application/json' } });
    const isLater = response.status === 429 || response.status >= 500;
    if (isLater) return undefined;
    if (!response.ok) return 'absent';
    return parse(await response.text()) ?? 'absent';
  } catch {
    return undefined;
  }
}

/** @param {string} text */
function parse(text) {
  try {
    return readPipeline(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/**
 * Draws the steps, the line about the one that works and the reason of the one that failed.
 *
 * @param {PipelineState} state
 */
export function showPipeline(state) {
  const { mood, text } = describePipeline(state);
  const section = byId('pipeline', HTMLElement);
  section.hidden = false;
  section.dataset.mood = mood;
  byId('pipeline-summary', HTMLElement).textContent = text;
  byId('steps', HTMLOListElement).replaceChildren(...state.steps.map(stepItem));
  const running = state.steps.find((step) => step.status === 'running');
  byId('pipeline-progress', HTMLElement).textContent = running === undefined ? '' : progressText(running);
  showFailure(state.steps.find((step) => step.status === 'failed'));
}

/** @param {boolean} live */
export function showPipelineLive(live) {
  byId('pipeline-offline', HTMLElement).hidden = live;
}

/**
 * @param {Step} step
 * @param {number} index
 */
function stepItem(step, index) {
  const share = shareOf(step);
  const mark = element('span', { class: 'mark', 'aria-hidden': 'true' }, markText(step, index));
  const item = element(
    'li',
    { class: 'step', 'data-status': step.status },
    mark,
    element('span', { class: 'step-name' }, step.function),
    element('span', { class: 'step-state' }, describeStep(step)),
  );
  if (share === undefined && step.status === 'running') item.dataset.unknown = '';
  item.style.setProperty('--share', String(share ?? 0.25));
  if (step.status === 'running' || step.status === 'queued') item.setAttribute('aria-current', 'step');
  return item;
}

/**
 * @param {Step} step
 * @param {number} index
 */
function markText(step, index) {
  if (step.status === 'succeeded') return '✓';
  return step.status === 'failed' ? '!' : String(index + 1);
}

/** @param {Step | undefined} step */
function showFailure(step) {
  const box = byId('pipeline-failure', HTMLElement);
  box.hidden = step === undefined;
  // An alert is read aloud whenever it changes, so the same reason is written once.
  if (step === undefined || box.dataset.startedAt === String(step.startedAt)) return;
  box.dataset.startedAt = String(step.startedAt);
  const title = step.problem?.title ?? `${step.function} failed`;
  const detail = step.problem?.detail ?? 'The log of the function has the reason.';
  box.replaceChildren(element('strong', {}, title), element('p', {}, detail));
  if (step.problem?.code) box.append(element('code', {}, step.problem.code));
}
