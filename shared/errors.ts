/**
 * The error catalogue: every failure the product can name, with a stable code.
 *
 * A status is also the brokers' retry protocol (Knative Eventing): 400, 413, 415 and 422 are final and go to
 * the dead letter; 429 and 503 are retried. Bad input is therefore never 404, 408 or 409.
 */
interface CatalogueEntry {
  status: number;
  title: string;
}

const catalogue = {
  // The caller's input
  'bad-request': { status: 400, title: 'The request cannot be understood' },
  'bad-event': { status: 400, title: 'The CloudEvent is malformed' },
  'bad-data': { status: 422, title: 'The data does not fit its schema' },
  unauthorized: { status: 401, title: 'A bearer token is required' },
  forbidden: { status: 403, title: 'This is not allowed here' },
  'not-found': { status: 404, title: 'There is nothing at this path' },
  'method-not-allowed': { status: 405, title: 'The method is not allowed on this path' },
  'dead-letter-unknown': { status: 410, title: 'There is no such dead letter' },
  'run-unknown': { status: 410, title: 'There is no such run' },
  'body-too-large': { status: 413, title: 'The body is too large' },
  'unsupported-media-type': { status: 415, title: 'The media type is not supported' },
  'event-reused': { status: 422, title: 'The event id was used before with another body' },
  // Images
  'not-an-image': { status: 422, title: 'This is not a photo we can read' },
  'truncated-image': { status: 422, title: 'The image is damaged or cut off' },
  'too-many-pixels': { status: 422, title: 'The image has too many pixels' },
  'image-too-large': { status: 422, title: 'The file is larger than a photo may be' },
  'blank-image': { status: 422, title: 'The photo shows one flat colour' },
  'quarantined-image': { status: 422, title: 'The photo resembles photos of different splits' },
  'empty-file': { status: 422, title: 'The file is empty' },
  // Feedback
  'label-unknown': { status: 422, title: 'The model has no such label' },
  'version-unknown': { status: 422, title: 'There is no such version of the model' },
  'consent-missing': { status: 422, title: 'A photo is kept only with consent' },
  'feedback-unknown': { status: 410, title: 'There is no such feedback' },
  'feedback-changed': { status: 422, title: 'The feedback is not what was looked at' },
  'feedback-settled': { status: 422, title: 'The feedback was reviewed before' },
  'feedback-full': { status: 503, title: 'Too much feedback waits for a review' },
  // Sources and datasets
  'bad-manifest': { status: 422, title: 'The manifest cannot be used' },
  'bad-archive': { status: 422, title: 'The archive cannot be used' },
  'bad-folder': { status: 422, title: 'The image folder cannot be used' },
  'file-unreadable': { status: 422, title: 'The file cannot be read' },
  'bad-label': { status: 422, title: 'The label is not allowed' },
  'conflicting-labels': { status: 422, title: 'The same photo carries different labels' },
  'address-refused': { status: 422, title: 'The address may not be fetched from here' },
  'download-failed': { status: 422, title: 'The download failed' },
  'download-timeout': { status: 422, title: 'The download took too long' },
  'uploads-unsupported': { status: 422, title: 'The object store gives no upload addresses' },
  'no-images': { status: 422, title: 'No usable photo was found' },
  'too-few-classes': { status: 422, title: 'A classifier needs at least two classes' },
  'too-few-images': { status: 422, title: 'A class has too few photos' },
  // Models
  'model-unknown': { status: 404, title: 'There is no such model' },
  'no-champion': { status: 503, title: 'No model has been deployed yet' },
  'explanation-unavailable': { status: 422, title: 'The model cannot say where it looked' },
  'model-rejected': { status: 422, title: 'The gate refused the model' },
  'model-broken': { status: 503, title: 'The model cannot be loaded' },
  'backbone-unavailable': { status: 503, title: 'The backbone cannot be had' },
  'backbone-unusable': { status: 422, title: 'The backbone that was named cannot be used' },
  // Deployments
  'deploy-busy': { status: 503, title: 'Another deployment of this model is under way' },
  'cluster-unavailable': { status: 503, title: 'The Kubernetes API cannot be reached' },
  'cluster-refused': { status: 500, title: 'The Kubernetes API refused a request' },
  'service-missing': { status: 503, title: 'The predict Service is not there' },
  'revision-failed': { status: 500, title: 'The new revision does not get ready' },
  'nothing-to-roll-back': { status: 422, title: 'There is no such version to go back to' },
  // Trouble
  overloaded: { status: 503, title: 'The function is at its limit' },
  'too-many-requests': { status: 429, title: 'Too many requests' },
  'shutting-down': { status: 503, title: 'The function is stopping' },
  'not-ready': { status: 503, title: 'The function is not ready' },
  'time-limit': { status: 503, title: 'The work took longer than its limit' },
  cancelled: { status: 503, title: 'The work was cancelled' },
  'lease-lost': { status: 503, title: 'Another attempt took this run over' },
  'worker-died': { status: 500, title: 'The process working on the event died again and again' },
  'compute-died': { status: 500, title: 'The thread of a computation ended before its answer' },
  'out-of-memory': { status: 500, title: 'There is not enough memory' },
  'database-unavailable': { status: 503, title: 'PostgreSQL cannot be reached' },
  'database-refused': { status: 503, title: 'PostgreSQL does not let us in' },
  'database-untrusted': { status: 503, title: 'The certificate of PostgreSQL cannot be trusted' },
  'database-busy': { status: 503, title: 'PostgreSQL has no connection left' },
  'database-full': { status: 503, title: 'PostgreSQL has no space left' },
  'database-read-only': { status: 503, title: 'PostgreSQL takes no writes' },
  'database-timeout': { status: 503, title: 'PostgreSQL took longer than its limit' },
  'object-missing': { status: 503, title: 'An object is missing from the object store' },
  'object-corrupt': { status: 503, title: 'An object does not match its digest' },
  'store-unavailable': { status: 503, title: 'A store cannot be reached' },
  'store-refused': { status: 500, title: 'A store refused what it was given' },
  'store-forbidden': { status: 503, title: 'A store refuses the credentials' },
  'store-full': { status: 503, title: 'A store has no space left' },
  'bucket-missing': { status: 503, title: 'The bucket does not exist' },
  'clock-skewed': { status: 503, title: 'The clocks of two machines differ too much' },
  'certificate-invalid': { status: 503, title: 'The certificate of a server cannot be trusted' },
  'upstream-unavailable': { status: 503, title: 'The function behind the gateway does not answer' },
  'bad-config': { status: 500, title: 'The configuration is not usable' },
  'port-in-use': { status: 500, title: 'The port is taken' },
  'bad-result': { status: 500, title: 'The function returned something that is not an answer' },
  internal: { status: 500, title: 'Something went wrong inside' },
} as const satisfies Record<string, CatalogueEntry>;

/** A stable name of a failure; clients and tests compare this, never the text. */
export type ErrorCode = keyof typeof catalogue;

export interface ErrorDetails {
  cause?: unknown;
  /** When a repeat is worth while, in milliseconds; becomes `Retry-After`. */
  retryAfterMs?: number;
  /** Further members of the problem document, safe to show. */
  extra?: Record<string, unknown>;
}

/** The one error type: a code of the catalogue, a sentence that names what is wrong and what to do. */
export class DandelionError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly retryAfterMs: number | undefined;
  readonly extra: Record<string, unknown>;

  constructor(code: ErrorCode, detail: string, details: ErrorDetails = {}) {
    super(detail, { cause: details.cause });
    this.name = 'DandelionError';
    this.code = code;
    this.status = catalogue[code].status;
    this.retryAfterMs = details.retryAfterMs;
    this.extra = details.extra ?? {};
  }
}

/** An RFC 9457 problem document, with our stable `code`. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: ErrorCode;
  [member: string]: unknown;
}

/** True for errors that a repeat of the same request cannot mend (4xx except 429). */
export function isFinal(error: unknown): boolean {
  return error instanceof DandelionError && error.status < 500 && error.status !== 429;
}

/** Wraps whatever was thrown: ours pass unchanged, anything else becomes `internal` with the cause kept. */
export function toDandelionError(thrown: unknown): DandelionError {
  if (thrown instanceof DandelionError) return thrown;
  const detail = thrown instanceof Error ? thrown.message : String(thrown);
  return new DandelionError('internal', detail, { cause: thrown });
}

/**
 * Turns an error into the document a caller may see.
 * Unexpected errors (500 `internal`) keep their message to the log: it may name hosts, paths or secrets.
 */
export function toProblem(thrown: unknown): Problem {
  const error = toDandelionError(thrown);
  const { status, title } = catalogue[error.code];
  const detail =
    error.code === 'internal' ? 'An unexpected error; the log has it under this trace id.' : error.message;
  return {
    ...error.extra,
    type: `https://dandelion.dev/problems/${error.code}`,
    title,
    status,
    detail,
    code: error.code,
  };
}

/** The status line of a code, for tables and documents. */
export function describeCode(code: ErrorCode): CatalogueEntry {
  return catalogue[code];
}
