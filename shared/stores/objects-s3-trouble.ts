import { DandelionError } from '../errors.ts';
import { certificateFault } from './certificates.ts';

/** The parts of an SDK or socket error that tell what happened. */
interface Symptoms {
  /** S3's error code, the SDK's or the system's: `AccessDenied`, `TimeoutError`, `ECONNREFUSED`. */
  names: string[];
  /** HTTP status of the server's answer, if there was one. */
  status: number | undefined;
  message: string;
}

const wrongKey = ['InvalidAccessKeyId', 'SignatureDoesNotMatch', 'InvalidToken', 'ExpiredToken'];
const skew = ['RequestTimeTooSkewed', 'RequestExpired', 'RequestInTheFuture'];
const full = ['XMinioStorageFull', 'XMinioAdminBucketQuotaExceeded', 'QuotaExceeded', 'InsufficientStorage'];
const wrongRegion = [
  'AuthorizationHeaderMalformed',
  'PermanentRedirect',
  'IllegalLocationConstraintException',
];
/** One end speaks TLS, the other does not. */
const mixedUp = /^(EPROTO|ERR_SSL_)/;

/** What is wrong with one store, in words that name it and the cure. */
export function describeTrouble(
  thrown: unknown,
  store: { endpoint: string; bucket: string },
): DandelionError {
  if (thrown instanceof DandelionError) return thrown;
  const { endpoint, bucket } = store;
  const { names, status, message } = symptomsOf(thrown);
  const is = (...known: string[]) => names.some((name) => known.includes(name));
  const server = `The S3 server at ${endpoint}`;
  const trouble = (...[code, sentence]: ConstructorParameters<typeof DandelionError>) =>
    new DandelionError(code, sentence, { cause: thrown, retryAfterMs: 2000 });

  if (is('NoSuchBucket')) {
    return trouble('bucket-missing', `${server} has no bucket "${bucket}": create it, or set S3_BUCKET.`);
  }
  if (is(...skew)) {
    const cure = 'set the clock of this machine or of the server (NTP)';
    return trouble('clock-skewed', `${server} refuses requests because the clocks differ too much: ${cure}.`);
  }
  if (is('CredentialsProviderError')) {
    const cure = 'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY';
    return trouble('store-forbidden', `There are no credentials for the S3 server at ${endpoint}: ${cure}.`);
  }
  if (is(...wrongKey)) {
    const cure = 'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right';
    return trouble('store-forbidden', `${server} does not accept the credentials (${message}): ${cure}.`);
  }
  if (is(...wrongRegion)) {
    return trouble('store-forbidden', `${server} is of another region (${message}): set S3_REGION.`);
  }
  if (status === 401 || status === 403) {
    const cure = `check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may read and write "${bucket}"`;
    return trouble('store-forbidden', `${server} refuses access to the bucket "${bucket}": ${cure}.`);
  }
  if (status === 507 || is(...full) || /no space left|ENOSPC|disk quota/i.test(message)) {
    return trouble('store-full', `${server} has no space left: free some, or enlarge its disk or quota.`);
  }
  if (is('IncompleteBody')) {
    const cure = 'free some space, or see what lies between here and there';
    return trouble(
      'store-full',
      `${server} did not keep all bytes, as MinIO says when its disk is full: ${cure}.`,
    );
  }
  const [certificate] = names.flatMap((name) => certificateFault(name, message) ?? []);
  if (certificate !== undefined) return trouble('certificate-invalid', `${server} ${certificate}.`);
  if (names.some((name) => mixedUp.test(name))) {
    return trouble(
      'store-unavailable',
      `${server} does not speak TLS there: set S3_ENDPOINT to http:// or to its TLS port.`,
    );
  }
  const answer = status === undefined ? message : `it answered ${status}, ${message}`;
  const cure = 'see that it runs and that S3_ENDPOINT is its address';
  return trouble('store-unavailable', `${server} cannot be used now (${answer}): ${cure}.`);
}

/** The error of a server whose answers lack what every S3 server puts into them: a console, a proxy, a web site. */
export function notS3(endpoint: string): DandelionError {
  return new DandelionError(
    'store-unavailable',
    `What answers at ${endpoint} is no S3 server: set S3_ENDPOINT to the address of its API, not of its web page.`,
  );
}

/** True when the server says that the bucket itself is not there. */
export function lacksBucket(thrown: unknown): boolean {
  return symptomsOf(thrown).names.includes('NoSuchBucket');
}

/** HTTP status of the answer behind an error, if there was an answer. */
export function statusOf(thrown: unknown): number | undefined {
  return symptomsOf(thrown).status;
}

/** True for bytes whose checksum is not the one that the server sent with them. */
export function isChecksumFault(thrown: unknown): boolean {
  return thrown instanceof Error && /checksum mismatch/i.test(thrown.message);
}

/** Gathers names and status from an error and what caused it. */
function symptomsOf(thrown: unknown): Symptoms {
  const found: Symptoms = { names: [], status: undefined, message: '' };
  for (let error = thrown; error instanceof Error; error = innerOf(error)) {
    const parts = error as Error & {
      code?: unknown;
      Code?: unknown;
      $metadata?: { httpStatusCode?: number };
    };
    for (const name of [parts.name, parts.code, parts.Code]) {
      if (typeof name === 'string' && name !== 'Error') found.names.push(name);
    }
    found.status ??= parts.$metadata?.httpStatusCode;
    if (found.message === '') found.message = parts.message.replace(/\.$/, '');
  }
  if (found.message === '' || found.message === 'UnknownError')
    found.message = found.names[0] ?? String(thrown);
  return found;
}

/** Of the addresses of a name that were tried, the last one's error; otherwise the cause. */
function innerOf(error: Error): unknown {
  return error instanceof AggregateError ? error.errors.at(-1) : error.cause;
}
