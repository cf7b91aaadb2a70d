/**
 * @typedef {{ id: string, label: string, classes: { name: string, share: number }[],
 *   model: { name: string, version: string }, latencyMs: number,
 *   explanation: { label: string, overlay: string } | undefined }} Prediction classes: most likely first
 * @typedef {{ code: string, title: string, detail: string, status: number }} Problem status 0: no answer came
 * @typedef {{ kind: 'answer', prediction: Prediction }
 *   | { kind: 'problem', problem: Problem, retryAfterMs: number | undefined }} Outcome
 */

/** The largest photo the predict function takes. */
export const MAX_PHOTO_BYTES = 20_000_000;

/** What a broker or proxy may answer while a function starts: worth another try. */
const passing = [429, 502, 503, 504];

/**
 * Sends a photo's own bytes and reads the answer. Never throws: every trouble is a problem to show.
 *
 * @param {string} url
 * @param {File} photo
 * @returns {Promise<Outcome>}
 */
export async function askPrediction(url, photo) {
  try {
    const response = await fetch(withExplanation(url), {
      method: 'POST',
      headers: { accept: 'application/json', 'content-type': mediaTypeOf(photo) },
      body: photo,
    });
    const body = await response.json().catch(() => undefined);
    return readOutcome(response.status, response.headers.get('retry-after'), body);
  } catch {
    return refused({
      code: 'unreachable',
      title: 'No answer from the server',
      detail: 'Check that Dandelion is still running and that you are online, then try again.',
      status: 0,
    });
  }
}

/** @param {string} url */
function withExplanation(url) {
  const explained = new URL(url, location.href);
  explained.searchParams.set('explain', 'auto');
  return explained;
}

/** @param {File} photo */
function mediaTypeOf(photo) {
  // Browsers do not know every photo format (HEIC on Windows); what it really is, the server reads from the bytes.
  return photo.type.startsWith('image/') ? photo.type : 'application/octet-stream';
}

/**
 * Reads an answer of the predict function, or of whatever stands before it.
 *
 * @param {number} status
 * @param {string | null} retryAfter seconds, as the header gives them
 * @param {any} body parsed JSON; undefined when there was none
 * @returns {Outcome}
 */
export function readOutcome(status, retryAfter, body) {
  if (status >= 200 && status < 300) {
    const prediction = readPrediction(body);
    if (prediction !== undefined) return { kind: 'answer', prediction };
    return refused({
      code: 'bad-answer',
      title: 'The answer cannot be read',
      detail: 'The server answered with something that is not a prediction.',
      status,
    });
  }
  const problem = {
    code: textOr(body?.code, `http-${status}`),
    title: textOr(body?.title, 'The photo could not be classified'),
    detail: textOr(body?.detail, `The server answered with status ${status}.`),
    status,
  };
  const seconds = retryAfter === null ? Number.NaN : Number(retryAfter);
  return refused(problem, Number.isFinite(seconds) ? seconds * 1000 : undefined);
}

/**
 * @param {Problem} problem
 * @param {number} [retryAfterMs]
 * @returns {Outcome}
 */
function refused(problem, retryAfterMs) {
  return { kind: 'problem', problem, retryAfterMs };
}

/**
 * @param {any} body
 * @returns {Prediction | undefined}
 */
function readPrediction(body) {
  if (typeof body?.label !== 'string' || typeof body.probabilities !== 'object') return undefined;
  const classes = Object.entries(body.probabilities ?? {})
    .map(([name, share]) => ({ name, share: Number(share) }))
    .sort((a, b) => b.share - a.share || a.name.localeCompare(b.name));
  return {
    id: textOr(body.id, ''),
    label: body.label,
    classes,
    model: { name: textOr(body.model?.name, 'model'), version: textOr(body.model?.version, '') },
    latencyMs: Number(body.latencyMs) || 0,
    explanation: readExplanation(body.explanation),
  };
}

/** @param {any} explanation */
function readExplanation(explanation) {
  const { label, overlay } = explanation ?? {};
  const isPicture = typeof overlay === 'string' && overlay.startsWith('data:image/png;base64,');
  return isPicture ? { label: textOr(label, ''), overlay } : undefined;
}

/**
 * @param {unknown} value
 * @param {string} otherwise
 */
function textOr(value, otherwise) {
  return typeof value === 'string' && value !== '' ? value : otherwise;
}

/**
 * True while the pipeline has not deployed a first model: the photo waits for it.
 *
 * @param {Problem} problem
 */
export function isWaitingForModel(problem) {
  return problem.code === 'no-champion';
}

/**
 * True when the same photo may be answered at another time.
 *
 * @param {Problem} problem
 */
export function isPassing(problem) {
  return problem.status === 0 || passing.includes(problem.status);
}
