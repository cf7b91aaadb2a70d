/** @typedef {import('./prediction.js').Prediction} Prediction */

/** Stands for "none of the classes" where a text is needed; no class may be called so. */
export const NONE = '(none)';

/**
 * What the feedback function takes: JSON, or a form where the photo comes along.
 *
 * @param {Prediction} prediction
 * @param {string | null} label what it is; null: none of the classes
 * @param {Blob} [photo] to be kept
 * @returns {{ body: BodyInit, headers: Record<string, string> }}
 */
export function feedbackRequest({ id, label: predicted, model, classes }, label, photo) {
  const known = classes.some(({ name }) => name === predicted);
  const correct = label === (known ? predicted : null);
  const verdict = correct ? { correct } : { correct, label };
  const consent = photo !== undefined;
  const text = JSON.stringify({ prediction: id, model, predicted, ...verdict, consent });
  if (photo === undefined) return { body: text, headers: { 'content-type': 'application/json' } };
  const form = new FormData();
  form.append('feedback', text);
  form.append('photo', photo);
  return { body: form, headers: {} };
}

/**
 * Sends an opinion. Never throws: every trouble is a sentence to show.
 *
 * @param {string} url
 * @param {Prediction} prediction
 * @param {string | null} label
 * @param {Blob} [photo]
 * @returns {Promise<{ ok: boolean, sentence: string }>}
 */
export async function sendFeedback(url, prediction, label, photo) {
  const { body, headers } = feedbackRequest(prediction, label, photo);
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { accept: 'application/json', ...headers },
      body,
    });
    const answer = await response.json().catch(() => undefined);
    return readReceipt(response.ok, answer, photo !== undefined);
  } catch {
    return { ok: false, sentence: 'The server does not answer. Your opinion was not sent.' };
  }
}

/**
 * @param {boolean} ok
 * @param {any} answer parsed JSON; undefined when there was none
 * @param {boolean} withPhoto
 * @returns {{ ok: boolean, sentence: string }}
 */
export function readReceipt(ok, answer, withPhoto) {
  if (!ok) {
    const detail = typeof answer?.detail === 'string' ? answer.detail : 'The server did not take it.';
    return { ok, sentence: `Not sent. ${detail}` };
  }
  if (answer?.status === 'accepted' || answer?.status === 'rejected')
    return { ok, sentence: 'What you said before was reviewed already, and stands.' };
  const sentence = 'Thank you. A person looks at it before anything is learnt';
  return {
    ok,
    sentence: withPhoto ? `${sentence}; the photo is deleted if it is not used.` : `${sentence}.`,
  };
}
