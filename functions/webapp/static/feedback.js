import { element } from './dom.js';
import { NONE, sendFeedback } from './opinion.js';

/**
 * @typedef {import('./queue.js').Entry} Entry
 * @typedef {NonNullable<Entry['prediction']>} Prediction
 */

/**
 * Asks whether an answer is right, says so to the server, and shows what came of it. It draws itself anew; the answer
 * above it stays as it is.
 *
 * @param {Entry} entry
 * @param {Prediction} prediction
 * @param {string} feedbackUrl
 */
export function feedbackPart(entry, prediction, feedbackUrl) {
  const part = element('section', { class: 'feedback', 'aria-label': 'Your opinion' });
  entry.opinion ??= { state: 'open', consent: false, sentence: '' };
  const { opinion } = entry;

  /** @param {boolean} [moveFocus] what had the focus is drawn anew */
  const draw = (moveFocus = true) => {
    part.replaceChildren(...partsOf[opinion.state]());
    if (!moveFocus) return;
    const next = part.querySelector('select, .feedback-said');
    if (next instanceof HTMLElement) next.focus();
  };

  /** @param {string | null} label what it is; null: none of the classes */
  const send = async (label) => {
    Object.assign(opinion, { state: 'sending', sentence: 'Sending' });
    draw();
    const photo = opinion.consent ? entry.file : undefined;
    const { ok, sentence } = await sendFeedback(feedbackUrl, prediction, label, photo);
    Object.assign(opinion, { state: ok ? 'said' : 'failed', sentence });
    draw();
  };
  const reopen = () => {
    opinion.state = 'open';
    draw();
  };

  const partsOf = {
    open: () => [
      element('p', { class: 'feedback-question' }, 'Is that right?'),
      element(
        'div',
        { class: 'feedback-choices' },
        button('Right', () => send(labelOf(prediction))),
        button('Wrong', () => {
          opinion.state = 'wrong';
          draw();
        }),
      ),
      consentBox(opinion),
    ],
    wrong: () => {
      const select = labelSelect(prediction);
      return [
        element('label', { class: 'feedback-question', for: select.id }, 'Wrong: it is'),
        element(
          'div',
          { class: 'feedback-choices' },
          select,
          button('Send', () => send(select.value === NONE ? null : select.value)),
          button('Back', reopen),
        ),
        consentBox(opinion),
      ];
    },
    sending: () => [said(opinion.sentence)],
    said: () => [said(opinion.sentence), button('Say something else', reopen)],
    failed: () => [said(opinion.sentence), button('Try again', reopen)],
  };
  draw(false);
  return part;
}

/** @param {Prediction} prediction */
function labelOf({ label, classes }) {
  return classes.some(({ name }) => name === label) ? label : null;
}

/** @param {Prediction} prediction */
function labelSelect({ label, classes }) {
  const select = element('select', { id: 'feedback-label' });
  const others = classes.map(({ name }) => name).filter((name) => name !== label);
  for (const name of others) select.append(element('option', { value: name }, name));
  if (classes.some(({ name }) => name === label)) {
    select.append(element('option', { value: NONE }, 'none of these'));
  }
  return select;
}

/** @param {{ consent: boolean }} opinion */
function consentBox(opinion) {
  const box = element('input', { type: 'checkbox' });
  box.checked = opinion.consent;
  box.addEventListener('change', () => {
    opinion.consent = box.checked;
  });
  const text = 'Keep this photo to learn from, once a person has looked at it';
  return element('label', { class: 'feedback-consent' }, box, element('span', {}, text));
}

/** @param {string} sentence */
function said(sentence) {
  return element('p', { class: 'feedback-said', role: 'status', tabindex: '-1' }, sentence);
}

/**
 * @param {string} text
 * @param {() => void} onClick
 */
function button(text, onClick) {
  const made = element('button', { type: 'button', class: 'button' }, text);
  made.addEventListener('click', onClick);
  return made;
}
