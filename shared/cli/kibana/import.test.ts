import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type KibanaDefinitions, readDefinitions } from './definitions.ts';
import { importIntoKibana } from './import.ts';

/** As much of Kibana as an import meets: it keeps rules by their id and tells what it was sent. */
let server: Server;
let url: string;
let calls: { method: string; path: string; xsrf: boolean; body: string }[];
let rules: Map<string, string>;
let status: number;
let definitions: KibanaDefinitions;

beforeEach(async () => {
  calls = [];
  rules = new Map();
  status = 200;
  definitions = await readDefinitions(resolve(import.meta.dirname, '../../../knative/kibana'));
  server = createServer(async (request, response) => {
    const { method = '', url: path = '', headers } = request;
    const body = await text(request);
    calls.push({ method, path, xsrf: headers['kbn-xsrf'] !== undefined, body });
    const answer = (code: number, value: object) => response.writeHead(code).end(JSON.stringify(value));
    if (status !== 200) return answer(status, { message: 'as the test wants' });
    if (path.startsWith('/api/saved_objects/_import')) {
      const successCount = body.split('\n').filter((line) => line.startsWith('{')).length;
      return answer(200, { success: true, successCount });
    }
    const [, id] = /^\/api\/alerting\/rule\/(.+)$/.exec(path) ?? [];
    if (id === undefined) return answer(200, {});
    if (method === 'POST' && rules.has(id)) return answer(409, {});
    if (method !== 'GET') rules.set(id, body);
    return answer(rules.has(id) ? 200 : 404, {});
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
});
afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

describe('an import into Kibana', () => {
  it('brings everything, and brings it again in its place', async () => {
    const expected = { objects: definitions.dashboards.length + 3, rules: definitions.rules.length };
    expect(await importIntoKibana({ url }, definitions, 0)).toEqual(expected);
    expect(await importIntoKibana({ url }, definitions, 0)).toEqual(expected);
    expect(rules.size).toBe(definitions.rules.length);
    const writes = calls.filter(({ method }) => method !== 'GET');
    expect(writes.every(({ xsrf }) => xsrf)).toBe(true);
    expect(writes.filter(({ path }) => path.includes('_import?overwrite=true'))).toHaveLength(2);
    const methods = writes.filter(({ path }) => path.includes('/rule/')).map(({ method }) => method);
    expect(new Set(methods.slice(0, expected.rules))).toEqual(new Set(['POST']));
    expect(new Set(methods.slice(expected.rules))).toEqual(new Set(['PUT']));
  });

  it('says what is wrong, and how to mend it', async () => {
    status = 403;
    await expect(importIntoKibana({ url }, definitions, 0)).rejects.toMatchObject({
      code: 'store-forbidden',
      message: expect.stringContaining('KIBANA_API_KEY'),
    });
    status = 503;
    await expect(importIntoKibana({ url }, definitions, 0)).rejects.toMatchObject({
      code: 'store-unavailable',
    });
    await expect(importIntoKibana({ url: 'http://127.0.0.1:1' }, definitions, 0)).rejects.toMatchObject({
      message: expect.stringContaining('KIBANA_URL'),
    });
  });
});
