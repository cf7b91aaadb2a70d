/** Loaded with the first call alone, as the client itself is. */
import {
  type ConnectionRequestOptions,
  type ConnectionRequestOptionsAsStream,
  type ConnectionRequestParams,
  type ConnectionRequestResponse,
  type ConnectionRequestResponseAsStream,
  errors,
  UndiciConnection,
} from '@elastic/elasticsearch';

const ANSWER_WITHIN_MS = 30_000;

/** The client's own limit is one between two bytes: a server that drips its answer would hold a request for ever. */
export class PunctualConnection extends UndiciConnection {
  override request(
    params: ConnectionRequestParams,
    options: ConnectionRequestOptions,
  ): Promise<ConnectionRequestResponse>;
  override request(
    params: ConnectionRequestParams,
    options: ConnectionRequestOptionsAsStream,
  ): Promise<ConnectionRequestResponseAsStream>;
  override async request(
    params: ConnectionRequestParams,
    options: ConnectionRequestOptions,
  ): Promise<ConnectionRequestResponse | ConnectionRequestResponseAsStream> {
    const limit = AbortSignal.timeout(ANSWER_WITHIN_MS);
    const signal = options.signal === undefined ? limit : AbortSignal.any([options.signal, limit]);
    try {
      return await super.request(params, { ...options, signal });
    } catch (error) {
      if (limit.aborted) throw new errors.TimeoutError('Request timed out');
      throw error;
    }
  }
}
