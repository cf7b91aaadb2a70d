import { DandelionError } from '../errors.ts';

/** What this product's client speaks; a server of an older line refuses its requests. */
const SERVER_MAJOR = 9;

/** By OpenSSL's and Node's words: the client hands on the message of a connection's fault, not its code. */
const TLS_FAULTS: readonly (readonly [RegExp, string])[] = [
  [/certificate has expired|CERT_HAS_EXPIRED/i, 'its certificate has expired: renew it'],
  [/not yet valid/i, 'its certificate is not valid yet: check the clocks of both machines'],
  [
    /self.signed|unable to (verify|get)|UNABLE_TO_VERIFY|issuer/i,
    'its certificate is of no known authority: name the file of that authority in NODE_EXTRA_CA_CERTS',
  ],
  [/altnames|ALTNAME/i, 'its certificate is for another host name: use the name in the certificate'],
  [
    /wrong version number|packet length too long/i,
    'it speaks no TLS there: use http:// in ELASTICSEARCH_URL',
  ],
];

/**
 * Says what a fault of the client means and what to do; never shows a password.
 *
 * @returns `bad-config` for what only a change of settings mends, else `store-unavailable`
 */
export function explainSearchFault(error: unknown, url: string): DandelionError {
  if (error instanceof DandelionError) return error;
  const where = `Elasticsearch at ${new URL(url).host}`;
  const wrong = (what: string) => new DandelionError('bad-config', `${where}: ${what}.`, { cause: error });
  const away = (what: string) =>
    new DandelionError('store-unavailable', `${where} ${what}.`, { cause: error, retryAfterMs: 5000 });
  const name = error instanceof Error ? error.name : '';
  const message = error instanceof Error ? error.message : String(error);
  if (name === 'ProductNotSupportedError') {
    return wrong('what answers there is not Elasticsearch; check ELASTICSEARCH_URL');
  }
  const status = statusOf(error);
  if (status === 401) {
    return wrong(
      'it refuses the credentials; set ELASTICSEARCH_API_KEY, or user and password in ELASTICSEARCH_URL',
    );
  }
  if (status === 403) {
    return wrong(
      'the credentials lack a privilege; they need manage_index_templates and monitor on the cluster, and auto_configure, create_doc and view_index_metadata on logs-dandelion.*, metrics-dandelion.* and predictions-dandelion.*',
    );
  }
  if (status === 400 && message.includes('media_type_header_exception')) {
    return wrong(`it is older than version ${SERVER_MAJOR}, which this product speaks; upgrade the server`);
  }
  if (name === 'TimeoutError') {
    return away('does not answer in time; check ELASTICSEARCH_URL, and see what holds the server up');
  }
  if (name === 'ConnectionError') {
    const fault = TLS_FAULTS.find(([pattern]) => pattern.test(message));
    if (fault !== undefined) return wrong(fault[1]);
  }
  if (name === 'ConnectionError' && /other side closed|socket hang up/i.test(message)) {
    return away('closes connections; where it wants TLS, use https:// in ELASTICSEARCH_URL');
  }
  if (name === 'ConnectionError' || name === 'NoLivingConnectionsError') {
    return away(`does not answer (${message}); check ELASTICSEARCH_URL and that the server runs`);
  }
  return away(`answers ${status ?? 'with a fault'}: ${message.slice(0, 300)}`);
}

/** HTTP status of a response that the client threw. */
export function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('statusCode' in error)) return undefined;
  return typeof error.statusCode === 'number' ? error.statusCode : undefined;
}
