import { spawnSync } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { describe, expect, it, test } from 'vitest';
import { parse, parseDocument } from 'yaml';
import { z } from 'zod';
import { readConfig } from '../config.ts';
import { functionUrls } from './remote-functions.ts';

const root = resolve(import.meta.dirname, '../..');
const text = await readFile(resolve(root, 'docker-compose.yml'), 'utf8');
const example = await readFile(resolve(root, '.env.example'), 'utf8');
const composeFile = z.object({
  services: z.record(
    z.string(),
    z.looseObject({
      image: z.string(),
      restart: z.string(),
      networks: z.array(z.string()),
      mem_limit: z.string(),
      cpus: z.number(),
      environment: z.record(z.string(), z.unknown()).default({}),
      ports: z.array(z.string()).default([]),
      volumes: z.array(z.string()).default([]),
      healthcheck: z.object({ test: z.array(z.string()) }).optional(),
    }),
  ),
  volumes: z.record(z.string(), z.null()),
});
const { services, volumes } = composeFile.parse(parse(text, { merge: true, maxAliasCount: -1 }));
const functions = (await readdir(resolve(root, 'functions'), { withFileTypes: true }))
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
  .sort();
const compose = [['docker', 'compose'], ['docker-compose']].find(
  ([program = '', ...words]) => spawnSync(program, [...words, 'version']).status === 0,
);
if (compose === undefined)
  console.warn('SKIPPED: docker-compose.yml is not read by Docker Compose itself: it is not on the PATH.');

function config(envFile: string) {
  const [program = '', ...words] = compose ?? [];
  const parameters = ['--file', resolve(root, 'docker-compose.yml'), '--env-file', envFile];
  const env = { PATH: process.env.PATH, HOME: process.env.HOME };
  return spawnSync(program, [...words, ...parameters, '--profile', '*', 'config', '--quiet'], {
    ...{ env, encoding: 'utf8' as const },
  });
}

describe('docker-compose.yml', () => {
  it('has a service for every function, and the gateway knows their addresses', () => {
    expect(Object.keys(services)).toEqual(expect.arrayContaining(functions));
    const given = { FUNCTION_URLS: String(services.gateway?.environment.FUNCTION_URLS) };
    const urls = readConfig(z.object({ FUNCTION_URLS: functionUrls }), given).FUNCTION_URLS;
    expect([...urls.keys()].sort()).toEqual(functions);
    for (const [name, url] of urls) expect(url).toBe(`http://${name}:8080`);
  });

  test.each(Object.entries(services))(
    '%s is pinned, limited, watched and not open to others',
    (name, service) => {
      expect(service.image).toMatch(
        /:(\$\{DANDELION_VERSION:-\d+\.\d+\.\d+\}|v?\d+\.\d+[\w.-]*|RELEASE\.[\dTZ-]+)$/,
      );
      expect(service.networks).toEqual(['dandelion']);
      for (const port of service.ports) expect(port).toMatch(/^127\.0\.0\.1:/);
      // What ends by itself tells by its exit code.
      const endsByItself = service.restart === 'on-failure';
      expect(service.healthcheck === undefined, name).toBe(endsByItself);
      for (const volume of service.volumes.filter((each) => !each.startsWith('.'))) {
        expect(volumes).toHaveProperty(volume.split(':')[0] ?? '');
      }
    },
  );

  it('takes every secret from the environment, and the example names each', () => {
    const required = [...text.matchAll(/\$\{(\w+):\?/g)].map(([, name]) => name ?? '');
    expect(required.length).toBeGreaterThan(10);
    for (const name of required) expect(example).toMatch(new RegExp(`^${name}=.+$`, 'm'));
    const secrets = Object.values(services).flatMap(({ environment }) =>
      Object.entries(environment).filter(([name]) => /PASSWORD|SECRET|TOKEN|KEY$/.test(name)),
    );
    for (const [name, value] of secrets) expect(`${name}=${value}`).toContain('${');
    expect(parseDocument(text).errors).toEqual([]);
  });
});

describe('the tests with real servers in GitHub Actions', () => {
  const job = z.object({
    services: z.record(z.string(), z.object({ image: z.string() })),
    permissions: z.undefined().optional(),
  });
  const workflow = z.object({ jobs: z.object({ services: job }), permissions: z.unknown() });

  it('run on the versions that docker-compose.yml brings up, and may only read', async () => {
    const path = resolve(root, '.github/workflows/test.yml');
    const { jobs, permissions } = workflow.parse(parse(await readFile(path, 'utf8')));
    expect(permissions).toEqual({ contents: 'read' });
    const images = Object.entries(jobs.services.services).map(([name, { image }]) => [name, image]);
    expect(images.length).toBeGreaterThan(0);
    for (const [name = '', image] of images) expect(image).toBe(services[name]?.image);
  });
});

describe.skipIf(compose === undefined)('Docker Compose', () => {
  it('reads the file, with all profiles', () => {
    expect(config(resolve(root, '.env.example'))).toMatchObject({ status: 0, stderr: '' });
  });

  it('says which variable is missing', () => {
    const { status, stderr } = config('/dev/null');
    expect(status).not.toBe(0);
    expect(stderr).toContain('copy .env.example to .env');
  });
});
