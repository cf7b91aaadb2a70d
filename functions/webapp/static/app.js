import { byId } from './dom.js';
import { showHistory } from './history.js';
import { listenForPhotos } from './intake.js';
import { showModel } from './model.js';
import { followPipeline, showPipeline, showPipelineLive } from './pipeline.js';
import { describePipeline, progressText } from './pipeline-state.js';
import { createQueue } from './queue.js';
import { showEntry, showWaiting, spokenResult } from './result.js';

/** @typedef {import('./queue.js').Entry} Entry */
/** @typedef {import('./pipeline-state.js').PipelineState} PipelineState */

const { predictUrl, pipelineUrl, feedbackUrl } = await readConfig();
const queue = createQueue(predictUrl, entryChanged);
const ways = { retry: queue.retry, feedbackUrl };
/** @type {Entry | undefined} */
let selected;
/** @type {PipelineState | undefined} */
let pipeline;
/** What the model's card shows, to draw it only when that changes. */
let shownModel = '';

listenForPhotos(addPhotos, hint);
followPipeline(pipelineUrl, pipelineChanged, showPipelineLive);
byId('terminal', HTMLElement).textContent =
  `curl --data-binary @photo.jpg -H 'content-type: image/jpeg' ${new URL(predictUrl, location.href)}`;
document.documentElement.dataset.ready = '';

/** @returns {Promise<{ predictUrl: string, pipelineUrl: string, feedbackUrl: string }>} */
async function readConfig() {
  const response = await fetch('config.json');
  return response.json();
}

/** @param {File[]} files */
function addPhotos(files) {
  byId('hint', HTMLElement).hidden = true;
  const [first] = queue.add(files);
  if (first !== undefined) select(first);
}

/** @param {Entry} entry */
function select(entry) {
  selected = entry;
  showEntry(entry, waiting(), ways);
  showHistory(queue.entries, selected, select);
  // On a phone the strip is below the photo it opens.
  byId('viewer', HTMLElement).scrollIntoView({ block: 'nearest' });
}

/** @param {Entry} entry */
function entryChanged(entry) {
  // Only the photo that changed is drawn again: bars that have grown stay, buttons keep the focus.
  if (entry === selected) showEntry(entry, waiting(), ways);
  showHistory(queue.entries, selected, select);
  const sentence = spokenResult(entry);
  if (sentence !== '') byId('spoken', HTMLElement).textContent = sentence;
  if (entry.prediction && pipeline === undefined) showServing(entry.prediction.model);
}

/** @param {PipelineState} state */
function pipelineChanged(state) {
  const previous = pipeline;
  pipeline = state;
  showPipeline(state);
  showPipelineLive(true);
  showWaiting(waiting());
  const training = describePipeline(state).mood === 'active';
  const cardState = JSON.stringify([state.champion, training]);
  if (cardState === shownModel) return;
  shownModel = cardState;
  byId('model', HTMLElement).hidden = false;
  showModel(state.champion, training);
  showServing(state.champion);
  if (state.champion !== null && state.champion.version !== previous?.champion?.version) queue.hurry();
}

/** @param {{ name: string, version: string } | null} model */
function showServing(model) {
  const chip = byId('serving', HTMLElement);
  chip.hidden = model === null;
  chip.textContent = model === null ? '' : `${model.name} ${model.version}`;
}

/** Why a photo may have to wait for a model. */
function waiting() {
  if (pipeline === undefined) return { reason: 'Nothing has been deployed yet.', progress: '' };
  const { mood, text } = describePipeline(pipeline);
  if (mood === 'failed')
    return { reason: `The pipeline has a problem: ${text.toLowerCase()}.`, progress: '' };
  if (mood === 'idle') return { reason: 'The pipeline has not started yet.', progress: '' };
  const running = pipeline.steps.find((step) => step.status === 'running');
  const progress = running === undefined ? text : `${text}, ${progressText(running)}`;
  return { reason: 'The pipeline is still training.', progress };
}

/** @param {string} sentence */
function hint(sentence) {
  const box = byId('hint', HTMLElement);
  box.hidden = false;
  box.textContent = sentence;
}
