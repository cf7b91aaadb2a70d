import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';

/** How the server meets a document: by its JSON text. */
export type ItemStatus = (json: string) => number;

/** Speaks as much of Elasticsearch as a writer meets, and can be as troublesome as one needs. */
export interface BulkServer {
  url: string;
  /** JSON texts by id, as stored. */
  stored: Map<string, string>;
  /** Bulk requests so far. */
  requests: number;
  /** Templates put so far. */
  templates: number;
  /** Status of each document; 201 unless set. */
  itemStatus: ItemStatus;
  /** Status of every request; 200 unless set. */
  requestStatus: number;
  /** Requests are held this long. */
  delayMs: number;
  /** Stores what a request has, then cuts the connection instead of answering. */
  losesAnswers: boolean;
  /** Says that it is Elasticsearch. */
  product: string | undefined;
  close(): Promise<void>;
}

export async function startBulkServer(port = 0): Promise<BulkServer> {
  const http = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy());
  });
  http.listen(port, '127.0.0.1');
  await once(http, 'listening');
  const address = http.address();
  const boundPort = typeof address === 'object' && address !== null ? address.port : port;
  const server: BulkServer = {
    url: `http://127.0.0.1:${boundPort}`,
    stored: new Map(),
    requests: 0,
    templates: 0,
    itemStatus: () => 201,
    requestStatus: 200,
    delayMs: 0,
    losesAnswers: false,
    product: 'Elasticsearch',
    async close() {
      http.closeAllConnections();
      http.close();
      await once(http, 'close');
    },
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await text(request);
    if (server.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, server.delayMs));
    const isBulk = request.url?.startsWith('/_bulk') === true;
    if (isBulk) server.requests += 1;
    if (request.method === 'PUT') server.templates += 1;
    if (server.product !== undefined) response.setHeader('x-elastic-product', server.product);
    response.setHeader('content-type', 'application/json');
    if (server.requestStatus !== 200) {
      response.statusCode = server.requestStatus;
      response.end(JSON.stringify({ error: { type: 'trouble', reason: 'as the test wants' } }));
      return;
    }
    if (!isBulk) {
      const isLookUp = request.method === 'GET' && request.url?.startsWith('/_component_template') === true;
      response.statusCode = isLookUp ? 404 : 200;
      response.end(isLookUp ? '{"error":{"type":"resource_not_found_exception"}}' : '{"acknowledged":true}');
      return;
    }
    const items = takeDocuments(server, body);
    if (server.losesAnswers) {
      response.destroy();
      return;
    }
    response.end(JSON.stringify({ errors: items.some(({ create }) => create.status > 299), items }));
  };
  return server;
}

function takeDocuments(server: BulkServer, body: string) {
  const lines = body.trimEnd().split('\n');
  return lines.flatMap((line, place) => {
    if (place % 2 === 1) return [];
    const { create } = JSON.parse(line) as { create: { _id: string } };
    const json = lines[place + 1] ?? '';
    const wanted = server.itemStatus(json);
    const status = wanted < 300 && server.stored.has(create._id) ? 409 : wanted;
    if (status < 300) server.stored.set(create._id, json);
    const error = status < 300 ? {} : { error: { type: `status_${status}`, reason: 'as the test wants' } };
    return [{ create: { status, ...error } }];
  });
}
