import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { readConfig, searchSettings } from '../config.ts';
import { openSearch, type Search } from './search.ts';
import { createSearchWriter, type SearchWriter, type WriterOptions } from './search-writer.ts';
import { type BulkServer, startBulkServer } from './testing-search.ts';

let server: BulkServer;
let search: Search;
let said: string[];
const open: SearchWriter[] = [];

beforeEach(async () => {
  server = await startBulkServer();
  search = searchAt(server.url);
  said = [];
});

afterEach(async () => {
  await Promise.all(open.splice(0).map((writer) => writer.close(AbortSignal.abort())));
  search.close();
  await server.close();
});

function searchAt(url: string): Search {
  const opened = openSearch(readConfig(searchSettings, { ELASTICSEARCH_URL: url }));
  if (opened === undefined) throw new Error('no address');
  return opened;
}

function writerTo(to: Search, options: Partial<WriterOptions> = {}): SearchWriter {
  const say = (sentence: string) => said.push(sentence);
  const writer = createSearchWriter({ search: to, say, flushAfterMs: 20, sayEveryMs: 10_000, ...options });
  open.push(writer);
  return writer;
}

function offer(writer: SearchWriter, count: number, more: object = {}): boolean[] {
  const stream = 'logs-dandelion.test-default';
  return Array.from({ length: count }, (_, place) =>
    writer.offer({ stream, id: `id-${place}`, json: JSON.stringify({ place, ...more }) }),
  );
}

const inTime = () => AbortSignal.timeout(10_000);

describe('a writer to Elasticsearch', () => {
  test('puts the templates first, then sends what was offered after a while', async () => {
    const writer = writerTo(search);
    offer(writer, 25);
    await vi.waitFor(() => expect(writer.counts().stored).toBe(25), 10_000);
    expect(server.stored.size).toBe(25);
    expect(server.templates).toBe(7);
    expect(writer.counts()).toEqual({ stored: 25, refused: 0, dropped: 0 });
  });

  test('sends a full batch at once and the rest when it is closed', async () => {
    const writer = writerTo(search, { batchDocuments: 10, flushAfterMs: 3_600_000 });
    offer(writer, 25);
    await vi.waitFor(() => expect(server.stored.size).toBe(20), 10_000);
    await writer.close(inTime());
    expect(server.stored.size).toBe(25);
    expect(writer.offer({ stream: 's', id: 'late', json: '{}' })).toBe(false);
    expect(writer.counts()).toEqual({ stored: 25, refused: 0, dropped: 1 });
  });

  test('keeps requests below a size in bytes', async () => {
    const writer = writerTo(search, { batchBytes: 2000 });
    offer(writer, 10, { padding: 'x'.repeat(900) });
    await writer.close(inTime());
    expect(server.stored.size).toBe(10);
    expect(server.requests).toBe(5);
  });

  test('repeats what a busy server turned away, alone', async () => {
    let turns = 0;
    server.itemStatus = (json) => (json.includes('"place":3') && turns++ < 3 ? 429 : 201);
    const writer = writerTo(search);
    offer(writer, 5);
    await writer.close(inTime());
    expect(server.stored.size).toBe(5);
    expect(server.requests).toBe(4);
    expect(writer.counts()).toEqual({ stored: 5, refused: 0, dropped: 0 });
  });

  test('stores nothing twice when answers are lost', async () => {
    server.losesAnswers = true;
    const writer = writerTo(search);
    offer(writer, 100);
    await vi.waitFor(() => expect(server.requests).toBeGreaterThan(1), 10_000);
    server.losesAnswers = false;
    await writer.close(inTime());
    expect(server.stored.size).toBe(100);
    expect(writer.counts()).toEqual({ stored: 100, refused: 0, dropped: 0 });
  });

  test('gives up documents that do not fit, counts them and tells once', async () => {
    server.itemStatus = (json) => (json.includes('"place":1') ? 400 : 201);
    const writer = writerTo(search);
    offer(writer, 10);
    await vi.waitFor(() => expect(writer.counts().refused).toBe(1), 10_000);
    await vi.waitFor(() => expect(said).toHaveLength(1), 10_000);
    offer(writer, 2);
    await writer.close(inTime());
    expect(writer.counts()).toMatchObject({ refused: 2, dropped: 0 });
    expect(said[0]).toContain('1 documents were refused: status_400');
    expect(said).toHaveLength(2);
  });

  test('does not let a document that breaks the server hold up the others', async () => {
    server.itemStatus = (json) => (json.includes('"place":1') ? 500 : 201);
    const writer = writerTo(search);
    offer(writer, 3);
    await writer.close(inTime());
    expect(server.stored.size).toBe(2);
    expect(writer.counts()).toEqual({ stored: 2, refused: 1, dropped: 0 });
  });

  test('keeps a bounded number of documents and bytes while nobody answers, and never throws', async () => {
    const writer = writerTo(searchAt('http://127.0.0.1:9'), { maxDocuments: 100 });
    const taken = offer(writer, 1000);
    expect(taken.filter(Boolean)).toHaveLength(100);
    await vi.waitFor(() => expect(said).not.toHaveLength(0), 10_000);
    await writer.close(AbortSignal.timeout(300));
    expect(writer.counts()).toEqual({ stored: 0, refused: 0, dropped: 1000 });
    expect(said.length).toBeLessThanOrEqual(2);
    const bytes = writerTo(search, { maxBytes: 5000, flushAfterMs: 3_600_000 });
    expect(offer(bytes, 10, { padding: 'x'.repeat(985) }).filter(Boolean)).toHaveLength(4);
  });

  test('is closed in time though the server holds every request', async () => {
    server.delayMs = 60_000;
    const writer = writerTo(search);
    offer(writer, 10);
    await writer.close(AbortSignal.timeout(200));
    expect(writer.counts()).toEqual({ stored: 0, refused: 0, dropped: 10 });
  });

  test('goes on by itself when the server is back', async () => {
    server.requestStatus = 503;
    const writer = writerTo(search);
    offer(writer, 10);
    await vi.waitFor(() => expect(said).not.toHaveLength(0), 10_000);
    server.requestStatus = 200;
    await vi.waitFor(() => expect(writer.counts().stored).toBe(10), 10_000);
  });

  test('halves a request that is too large for the server', async () => {
    const small = await startBulkServer();
    const writer = writerTo(searchAt(small.url));
    small.itemStatus = () => 201;
    offer(writer, 1);
    await vi.waitFor(() => expect(small.stored.size).toBe(1), 10_000);
    small.requestStatus = 413;
    offer(writer, 8);
    await vi.waitFor(() => expect(writer.counts().refused).toBe(8), 10_000);
    await small.close();
  });
});

describe('trouble with Elasticsearch is named', () => {
  const send = async (url: string, apiKey?: string) => {
    const settings = readConfig(searchSettings, { ELASTICSEARCH_URL: url, ELASTICSEARCH_API_KEY: apiKey });
    const opened = openSearch(settings);
    return opened?.send([{ stream: 's', id: '1', json: '{}' }]).finally(() => opened.close());
  };

  test.each([
    [401, 'bad-config', 'refuses the credentials'],
    [503, 'store-unavailable', 'answers 503'],
  ])('status %d', async (status, code, sentence) => {
    server.requestStatus = status;
    await expect(send(server.url)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(sentence),
    });
  });

  test('another product', async () => {
    server.product = undefined;
    await expect(send(server.url)).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringContaining('not Elasticsearch'),
    });
  });

  test('nobody there, without the password', async () => {
    const fault = send('http://elastic:secret@127.0.0.1:9');
    await expect(fault).rejects.toMatchObject({ code: 'store-unavailable' });
    await expect(fault).rejects.toThrow('127.0.0.1:9 does not answer');
    await expect(fault).rejects.not.toThrow('secret');
  });

  test('TLS where there is none', async () => {
    await expect(send(server.url.replace('http:', 'https:'))).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringContaining('http://'),
    });
  });

  test('store repeats until its signal aborts, then says why', async () => {
    server.requestStatus = 503;
    await expect(
      search.store([{ stream: 's', id: '1', json: '{}' }], AbortSignal.timeout(600)),
    ).rejects.toMatchObject({ code: 'store-unavailable', message: expect.stringContaining('503') });
    server.requestStatus = 200;
    server.itemStatus = (json) => (json === '{}' ? 201 : 400);
    const documents = ['{}', '{"poisoned":1}'].map((json, id) => ({ stream: 's', id: `${id}`, json }));
    const refused = await search.store(documents, inTime());
    expect(refused.map(({ document }) => document.id)).toEqual(['1']);
  });
});
