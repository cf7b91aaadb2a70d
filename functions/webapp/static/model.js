import { bar, byId, element } from './dom.js';
import { formatCount, formatShare } from './format.js';

/** @typedef {import('./pipeline-state.js').Champion} Champion */
/** @typedef {import('./pipeline-state.js').MetricsSummary} MetricsSummary */

/** A dataset of a hundred classes is told by its largest; the table has them all. */
const LISTED_CLASSES = 8;

/**
 * Draws the card of the model that serves.
 *
 * @param {Champion | null} champion
 * @param {boolean} training true while a pipeline works on the first one
 */
export function showModel(champion, training) {
  const card = byId('model-body', HTMLElement);
  if (champion === null) {
    const text = training
      ? 'The pipeline is training the first one. Drop a photo meanwhile: it is answered as soon as the model serves.'
      : 'Nothing has been deployed yet.';
    card.replaceChildren(
      element('p', { class: 'model-name' }, 'No model yet'),
      element('p', { class: 'quiet' }, text),
    );
    return;
  }
  /** @type {HTMLElement[]} */
  const parts = [
    element('p', { class: 'model-name' }, champion.name),
    element(
      'p',
      { class: 'quiet' },
      element('span', { class: 'visually-hidden' }, 'version '),
      element('code', {}, champion.version),
    ),
  ];
  if (champion.metrics !== null) parts.push(...metricsParts(champion.metrics));
  if (champion.dataset !== null) parts.push(datasetPart(champion.dataset));
  card.replaceChildren(...parts);
}

/** @param {MetricsSummary} metrics */
function metricsParts(metrics) {
  const [low, high] = metrics.interval;
  const accuracy = element(
    'div',
    { class: 'accuracy' },
    element('span', { class: 'accuracy-value' }, formatShare(metrics.accuracy)),
    element('span', { class: 'accuracy-name' }, 'right on photos it never saw'),
    intervalBar(metrics.accuracy, low, high),
    element('span', { class: 'quiet' }, `95% interval ${formatShare(low)} to ${formatShare(high)}`),
    element('span', { class: 'quiet' }, `on ${formatCount(metrics.images)} test photos`),
  );
  const figures = element(
    'dl',
    { class: 'figures' },
    figure(
      'ROC AUC',
      metrics.rocAuc.toFixed(3),
      'how well classes are told apart; 1 is perfect, 0.5 is chance',
    ),
    figure('ECE', metrics.ece.toFixed(3), 'gap between confidence and truth; 0 is perfect'),
  );
  return [accuracy, figures, classTable(metrics)];
}

/**
 * The range from 50 to 100 %, where classifiers live; from 0 when the interval reaches below.
 *
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
function intervalBar(value, low, high) {
  const start = low < 0.5 ? 0 : 0.5;
  const place = (/** @type {number} */ share) => String((share - start) / (1 - start));
  const track = element(
    'div',
    { class: 'interval', 'aria-hidden': 'true' },
    element('span', { class: 'interval-range' }),
    element('span', { class: 'interval-value' }),
    element('span', { class: 'interval-low' }, formatShare(start)),
    element('span', { class: 'interval-high' }, '100%'),
  );
  track.style.setProperty('--low', place(low));
  track.style.setProperty('--high', place(high));
  track.style.setProperty('--value', place(value));
  return track;
}

/**
 * @param {string} name
 * @param {string} value
 * @param {string} meaning
 */
function figure(name, value, meaning) {
  return element(
    'div',
    {},
    element('dt', {}, name),
    element('dd', {}, value),
    element('dd', { class: 'quiet' }, meaning),
  );
}

/** @param {MetricsSummary} metrics */
function classTable(metrics) {
  const names = ['Class', 'Precision', 'Recall', 'F1', 'Photos'];
  const head = element('tr', {}, ...names.map((name) => element('th', { scope: 'col' }, name)));
  const rows = Object.entries(metrics.perClass).map(([name, scores]) =>
    element(
      'tr',
      {},
      element('th', { scope: 'row' }, name),
      element('td', {}, formatShare(scores.precision)),
      element('td', {}, formatShare(scores.recall)),
      element('td', {}, scores.f1.toFixed(3)),
      element('td', {}, formatCount(scores.support)),
    ),
  );
  const table = element(
    'table',
    {},
    element('caption', { class: 'visually-hidden' }, 'Quality of each class on the test photos'),
    element('thead', {}, head),
    element('tbody', {}, ...rows),
  );
  return element(
    'div',
    { class: 'table-box', tabindex: '0', role: 'region', 'aria-label': 'Quality of each class' },
    table,
  );
}

/** @param {NonNullable<Champion['dataset']>} dataset */
function datasetPart(dataset) {
  const classes = Object.entries(dataset.classes).sort(([, a], [, b]) => b - a);
  const items = classes
    .slice(0, LISTED_CLASSES)
    .map(([name, images]) =>
      element(
        'li',
        {},
        element('span', {}, name),
        bar(images / dataset.images),
        element('span', { class: 'number' }, formatCount(images)),
      ),
    );
  return element(
    'section',
    { class: 'dataset' },
    element('h3', {}, `Learned from ${formatCount(dataset.images)} photos`),
    element('ul', {}, ...items),
    ...(classes.length > items.length
      ? [element('p', { class: 'quiet' }, `and ${classes.length - items.length} more classes`)]
      : []),
    element('p', { class: 'quiet' }, 'dataset ', element('code', {}, dataset.version.slice(0, 12))),
  );
}
