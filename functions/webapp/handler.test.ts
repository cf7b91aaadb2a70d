import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { DandelionError } from '../../shared/errors.ts';
import { startFunction } from '../../shared/function/testing.ts';
import type { FunctionModule } from '../../shared/function/types.ts';
import * as webapp from './handler.ts';

type Server = Awaited<ReturnType<typeof startFunction>>;

let server: Server;
const start = (env: Record<string, string> = {}, module: FunctionModule = webapp) =>
  startFunction(module, { name: 'webapp', env });
const get = (path: string, init?: RequestInit) => fetch(server.url + path, init);

describe('the page', () => {
  beforeAll(async () => {
    server = await start();
  });
  afterAll(() => server.close());

  test.each([
    ['/', 'text/html; charset=utf-8'],
    ['/app.js', 'text/javascript; charset=utf-8'],
    ['/style.css', 'text/css; charset=utf-8'],
    ['/icon.svg', 'image/svg+xml'],
  ])('serves %s as %s', async (path, mediaType) => {
    const response = await get(path);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe(mediaType);
    expect((await response.text()).length).toBeGreaterThan(100);
  });

  test('has every file that its HTML and its scripts name', async () => {
    const folder = join(import.meta.dirname, 'static');
    const names = await readdir(folder);
    const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
    const referenced = texts.flatMap((text) => [
      ...text.matchAll(/(?:href|src)="([\w-]+\.\w+)"|from '\.\/([\w-]+\.js)'/g),
    ]);
    const paths = new Set(referenced.map((match) => `/${match[1] ?? match[2]}`));
    expect(paths.size).toBeGreaterThan(5);
    for (const path of paths) expect((await get(path)).status, path).toBe(200);
  });

  test('asks nothing of other hosts and has no inline script or style, which its policy would block', async () => {
    const response = await get('/');
    const policy = response.headers.get('content-security-policy');
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
    expect(policy).toContain("connect-src 'self';");
    expect(response.headers.get('x-content-type-options')).toBe('nosniff');
    expect(await response.text()).not.toMatch(/https?:\/\/|<style|\sstyle=|\son\w+=|<script(?![^>]*src=)/);
  });

  test('is revalidated by ETag: 304 without a body while the browser holds the same bytes', async () => {
    const { headers } = await get('/app.js');
    const etag = headers.get('etag') ?? '';
    expect(headers.get('cache-control')).toBe('no-cache');
    for (const held of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const again = await get('/app.js', { headers: { 'if-none-match': held } });
      expect(again.status, held).toBe(304);
      expect(again.headers.get('etag')).toBe(etag);
      expect(await again.text()).toBe('');
    }
    expect((await get('/app.js', { headers: { 'if-none-match': '"other"' } })).status).toBe(200);
  });

  test('answers HEAD with the headers of GET and without a body', async () => {
    const head = await get('/style.css', { method: 'HEAD' });
    const whole = await get('/style.css');
    for (const name of ['content-type', 'content-length', 'etag']) {
      expect(head.headers.get(name), name).toBe(whole.headers.get(name));
    }
    expect(await head.text()).toBe('');
  });

  test.each([
    ['GET', '/nothing', 404, 'not-found'],
    ['GET', '/..%2fhandler.ts', 404, 'not-found'],
    ['POST', '/', 405, 'method-not-allowed'],
    ['DELETE', '/app.js', 405, 'method-not-allowed'],
  ])('answers %s %s with the problem %i %s', async (method, path, status, code) => {
    const response = await get(path, { method });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ status, code });
  });

  test('is found beside the bundle as it is beside the source', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'webapp-bundle-'));
    try {
      const outfile = join(folder, 'index.mjs');
      const entry = join(import.meta.dirname, 'handler.ts');
      await build({ entryPoints: [entry], bundle: true, platform: 'node', format: 'esm', outfile });
      await cp(join(import.meta.dirname, 'static'), join(folder, 'static'), { recursive: true });
      const bundled = await start({}, await import(outfile));
      const page = await (await fetch(bundled.url)).text();
      await bundled.close();
      expect(page).toBe(await (await get('/')).text());
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('/config.json', () => {
  afterEach(() => server.close());

  test('names the local platform by default', async () => {
    server = await start();
    const response = await get('/config.json');
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(await response.json()).toEqual({
      ...{ predictUrl: '/function/predict/', pipelineUrl: '/pipeline' },
      feedbackUrl: '/function/feedback/',
    });
  });

  test('takes an empty PIPELINE_URL or FEEDBACK_URL as none', async () => {
    server = await start({ PIPELINE_URL: '', FEEDBACK_URL: '' });
    expect(await (await get('/config.json')).json()).toMatchObject({ pipelineUrl: '', feedbackUrl: '' });
  });

  test('lets the page call a predict function on another host, and only that', async () => {
    server = await start({ PREDICT_URL: 'https://predict.example.test:8443/v1/', PIPELINE_URL: '' });
    expect((await get('/')).headers.get('content-security-policy')).toContain(
      "connect-src 'self' https://predict.example.test:8443; base-uri",
    );
  });
});

test.each(['predict', '//elsewhere.test/', 'ftp://predict.test/', 'https://'])(
  'refuses %s as PREDICT_URL at start, by name',
  async (url) => {
    const thrown = await start({ PREDICT_URL: url }).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(DandelionError);
    expect(thrown).toMatchObject({ code: 'bad-config', message: expect.stringContaining('PREDICT_URL') });
  },
);
