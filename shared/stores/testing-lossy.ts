import { once } from 'node:events';
import { createServer } from 'node:http';
import { buffer } from 'node:stream/consumers';

/** A way to a server on which answers get lost. */
export interface LossyWay {
  url: string;
  /** What was done without an answer, as `POST runs/create`. */
  lost: string[];
  close(): Promise<void>;
}

/**
 * Hands requests on to a server and lets the first answer to each kind of change get lost: the server has done it,
 * the caller sees a broken connection.
 */
export async function openLossyWay(serverUrl: string): Promise<LossyWay> {
  const lost: string[] = [];
  const proxy = createServer(async (request, response) => {
    const { method = 'GET', url = '/' } = request;
    const body = await buffer(request);
    const { 'content-type': type, authorization } = request.headers;
    const answer = await fetch(`${serverUrl}${url}`, {
      method,
      headers: { ...(type && { 'content-type': type }), ...(authorization && { authorization }) },
      ...(method === 'GET' ? {} : { body: new Uint8Array(body) }),
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    const kind = `${method} ${url.replace('/api/2.0/mlflow/', '').replaceAll(/\/(m-)?[0-9a-f]{32}.*/g, '')}`;
    if (method !== 'GET' && !lost.includes(kind)) {
      lost.push(kind);
      request.socket.destroy();
      return;
    }
    response
      .writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' })
      .end(bytes);
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const address = proxy.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    lost,
    async close() {
      proxy.close();
      proxy.closeAllConnections();
      await once(proxy, 'close');
    },
  };
}
