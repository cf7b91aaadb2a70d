import { bar, byId, element } from './dom.js';
import { explanationSwitch } from './explanation.js';
import { feedbackPart } from './feedback.js';
import { formatDuration, formatShare, formatSize } from './format.js';
import { isPassing, isWaitingForModel } from './prediction.js';

/**
 * @typedef {import('./queue.js').Entry} Entry
 * @typedef {{ reason: string, progress: string }} Waiting why there is no model, and how far the pipeline is
 */

/** Below this the page says "perhaps": near a coin's toss a bare label would promise too much. */
const SURE_FROM = 0.7;

/** @type {string | undefined} */
let photoUrl;
/** @type {Entry | undefined} */
let shownEntry;

/**
 * Shows a photo at once and, beside it, what is known about it by now.
 *
 * @param {Entry} entry
 * @param {Waiting} waiting
 * @param {{ retry: (entry: Entry) => void, feedbackUrl: string }} ways what a person may do about it; an empty address:
 *   opinions are not asked for here
 */
export function showEntry(entry, waiting, ways) {
  byId('welcome', HTMLElement).hidden = true;
  byId('viewer', HTMLElement).hidden = false;
  if (shownEntry !== entry) showPhoto(entry);
  const result = byId('result', HTMLElement);
  result.dataset.status = entry.status;
  result.replaceChildren(...resultParts(entry, waiting, ways));
}

/** @param {Entry} entry */
function showPhoto(entry) {
  if (photoUrl !== undefined) URL.revokeObjectURL(photoUrl);
  photoUrl = URL.createObjectURL(entry.file);
  shownEntry = entry;
  const figure = byId('photo', HTMLElement);
  const name = `${entry.file.name} (${formatSize(entry.file.size)})`;
  const image = element('img', { src: photoUrl, alt: `Your photo ${entry.file.name}`, class: 'photo-sharp' });
  const backdrop = element('img', { src: photoUrl, alt: '', class: 'photo-backdrop' });
  const caption = element('figcaption', {}, name);
  image.addEventListener('error', () => {
    if (shownEntry !== entry) return;
    figure.replaceChildren(
      element('p', { class: 'no-preview' }, 'This browser cannot show the file.'),
      caption,
    );
  });
  figure.replaceChildren(backdrop, image, caption);
}

/**
 * @param {Entry} entry
 * @param {Waiting} waiting
 * @param {Parameters<typeof showEntry>[2]} ways
 * @returns {HTMLElement[]}
 */
function resultParts(entry, waiting, { retry, feedbackUrl }) {
  const { status, prediction, problem } = entry;
  if (status === 'answered' && prediction) {
    const parts = answerParts(prediction, entry.roundTripMs);
    const canSay = feedbackUrl !== '' && prediction.id !== '';
    return canSay ? [...parts, feedbackPart(entry, prediction, feedbackUrl)] : parts;
  }
  if (status === 'refused' && problem) return problemParts(entry, problem, retry);
  if (entry.status === 'waiting' && entry.problem) return waitingParts(entry.problem, waiting);
  return [
    element('p', { class: 'verdict-lead' }, entry.status === 'queued' ? 'In the queue' : 'Looking at it'),
    element(
      'div',
      { class: 'skeleton', 'aria-hidden': 'true' },
      element('span'),
      element('span'),
      element('span'),
    ),
  ];
}

/**
 * @param {NonNullable<Entry['prediction']>} prediction
 * @param {number} roundTripMs
 */
function answerParts(prediction, roundTripMs) {
  const { label, classes, model, latencyMs, explanation } = prediction;
  const share = shareOfLabel(prediction);
  const items = classes.map(({ name, share }) =>
    element(
      'li',
      name === label ? { class: 'chosen' } : {},
      element('span', { class: 'class-name' }, name),
      element('span', { class: 'number' }, formatShare(share)),
      bar(share),
    ),
  );
  const list = element('ol', { class: 'classes', 'aria-label': 'Confidence of every class' }, ...items);
  if (items.length > 8) list.tabIndex = 0;
  return [
    element('p', { class: 'verdict-lead' }, leadOf(share)),
    element('p', { class: 'verdict' }, label),
    list,
    ...(explanation === undefined ? [] : [explanationSwitch(explanation)]),
    element(
      'dl',
      { class: 'facts' },
      fact('Model', `${model.name} ${model.version}`),
      fact('Time', `${formatDuration(latencyMs)} on the server, ${formatDuration(roundTripMs)} in all`),
    ),
  ];
}

/** @param {NonNullable<Entry['prediction']>} prediction */
function shareOfLabel({ label, classes }) {
  return classes.find(({ name }) => name === label)?.share;
}

/** @param {number | undefined} share of the label; undefined when it is none of the classes */
function leadOf(share) {
  if (share === undefined) return 'None of the classes it knows';
  return share < SURE_FROM ? 'Not sure, perhaps' : 'This looks like';
}

/**
 * @param {string} name
 * @param {string} value
 */
function fact(name, value) {
  return element('div', {}, element('dt', {}, name), element('dd', {}, value));
}

/**
 * @param {NonNullable<Entry['problem']>} problem
 * @param {Waiting} waiting
 */
function waitingParts(problem, waiting) {
  const forModel = isWaitingForModel(problem);
  const text = forModel ? waitingText(waiting) : `${problem.title}. Trying again by itself.`;
  return [
    element('p', { class: 'verdict-lead' }, 'Waiting'),
    element('p', { class: 'verdict' }, forModel ? 'No model yet' : 'One moment'),
    element('p', { id: 'waiting-reason' }, text),
    element('p', { id: 'waiting-progress', class: 'quiet' }, forModel ? waiting.progress : ''),
    element('div', { class: 'skeleton', 'aria-hidden': 'true' }, element('span'), element('span')),
  ];
}

/**
 * @param {Entry} entry
 * @param {NonNullable<Entry['problem']>} problem
 * @param {(entry: Entry) => void} onRetry
 */
function problemParts(entry, problem, onRetry) {
  /** @type {HTMLElement[]} */
  const parts = [
    element('p', { class: 'verdict-lead' }, 'That did not work'),
    element('p', { class: 'verdict' }, problem.title),
    element('p', {}, problem.detail),
    element('p', { class: 'quiet' }, element('code', {}, problem.code)),
  ];
  if (isPassing(problem)) {
    const again = element('button', { type: 'button', class: 'button' }, 'Try again');
    again.addEventListener('click', () => onRetry(entry));
    parts.push(again);
  }
  return parts;
}

/**
 * Brings the words of a photo that waits for a model up to date, without drawing anything else anew.
 *
 * @param {Waiting} waiting
 */
export function showWaiting(waiting) {
  if (shownEntry?.status !== 'waiting' || !shownEntry.problem) return;
  if (!isWaitingForModel(shownEntry.problem)) return;
  byId('waiting-reason', HTMLElement).textContent = waitingText(waiting);
  byId('waiting-progress', HTMLElement).textContent = waiting.progress;
}

/** @param {Waiting} waiting */
function waitingText({ reason }) {
  return `${reason} Your photo is kept here and answered as soon as a model serves.`;
}

/**
 * One sentence about a photo, for those who listen to the page.
 *
 * @param {Entry} entry
 */
export function spokenResult(entry) {
  const { status, prediction, problem, file } = entry;
  if (status === 'answered' && prediction) {
    const share = shareOfLabel(prediction);
    return `${file.name}: ${prediction.label}${share === undefined ? '' : `, ${formatShare(share)}`}.`;
  }
  if (status === 'refused' && problem) return `${file.name}: ${problem.title}. ${problem.detail}`;
  if (status === 'waiting' && problem)
    return isWaitingForModel(problem) ? 'No model yet. Your photo waits for it.' : '';
  return '';
}
