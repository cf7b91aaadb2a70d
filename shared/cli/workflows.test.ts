import { spawnSync } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';

const root = join(import.meta.dirname, '../..');
const folder = join(root, '.github/workflows');
const permissions = z.record(z.string(), z.enum(['read', 'write', 'none']));
const workflowFile = z.object({
  on: z.record(z.string(), z.unknown()),
  permissions,
  jobs: z.record(
    z.string(),
    z.object({
      'timeout-minutes': z.number().max(90),
      permissions: permissions.optional(),
      environment: z.unknown().optional(),
      steps: z.array(
        z.object({
          uses: z.string().optional(),
          run: z.string().optional(),
          env: z.record(z.string(), z.unknown()).default({}),
          with: z.record(z.string(), z.unknown()).default({}),
        }),
      ),
    }),
  ),
});

const names = (await readdir(folder)).filter((name) => name.endsWith('.yml')).sort();
const workflows = await Promise.all(
  names.map(async (name) => {
    const text = await readFile(join(folder, name), 'utf8');
    return { name, text, content: workflowFile.parse(parse(text)) };
  }),
);
const { scripts } = z
  .object({ scripts: z.record(z.string(), z.string()) })
  .parse(JSON.parse(await readFile(join(root, 'package.json'), 'utf8')));
const actionlint = spawnSync('actionlint', ['-version']).status === 0;
if (!actionlint) console.warn('SKIPPED: workflows are not read by actionlint: it is not on the PATH.');

describe.each(workflows)('$name', ({ text, content }) => {
  const steps = Object.values(content.jobs).flatMap((job) => job.steps);

  it('names every action by its commit, with the version beside it', () => {
    const used = [...text.matchAll(/uses: (.+)$/gm)].map(([, words]) => words);
    expect(used.length).toBeGreaterThan(0);
    for (const words of used) expect(words).toMatch(/^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
  });

  it('reads the contents and nothing more, but for the jobs that say so', () => {
    expect(content.permissions).toEqual({ contents: 'read' });
    for (const job of Object.values(content.jobs)) expect(job.permissions?.contents).not.toBe('write');
    expect(content.on).not.toHaveProperty('pull_request_target');
    const checkouts = steps.filter(({ uses }) => uses?.startsWith('actions/checkout@'));
    expect(checkouts.length).toBeGreaterThan(0);
    for (const { with: given } of checkouts) expect(given['persist-credentials']).toBe(false);
  });

  it('calls scripts that exist', () => {
    const called = steps.flatMap(({ run = '' }) =>
      [...run.matchAll(/npm run (?:--silent )?([\w:-]+)/g)].map(([, script]) => script ?? ''),
    );
    for (const script of called) expect(scripts).toHaveProperty([script]);
  });

  it('puts nothing into a script that a stranger could have written', () => {
    for (const { run = '' } of steps) expect(run).not.toMatch(/\$\{\{/);
  });
});

test('the end-to-end suite is told where its cluster is, else it would test nothing', () => {
  const steps = workflows.flatMap(({ content }) => Object.values(content.jobs).flatMap((job) => job.steps));
  const suites = steps.filter(({ run = '' }) => run.includes('npm run test:e2e'));
  expect(suites.length).toBeGreaterThan(0);
  for (const { run, env } of suites) {
    expect(run).toContain('KUBECONFIG=');
    expect(env).toHaveProperty('INGRESS_URL');
  }
});

test('one action has one version in all workflows', () => {
  const used = workflows.flatMap(({ text }) => [...text.matchAll(/uses: ([^@]+)@(\w+)/g)]);
  const commits = new Map<string, Set<string>>();
  for (const [, action = '', commit = ''] of used) {
    commits.set(action, (commits.get(action) ?? new Set()).add(commit));
  }
  for (const [action, found] of commits) expect([action, ...found]).toHaveLength(2);
});

test('a job that may write packages runs for a tag alone', () => {
  for (const { content, text } of workflows) {
    for (const [name, job] of Object.entries(content.jobs)) {
      if (job.permissions?.packages !== 'write') continue;
      expect(text).toMatch(new RegExp(`^ {2}${name}:\\n {4}if: github.ref_type == 'tag'$`, 'm'));
    }
  }
});

test.skipIf(!actionlint)('actionlint finds no fault', () => {
  const { stdout, status } = spawnSync('actionlint', ['-no-color'], { cwd: root, encoding: 'utf8' });
  expect({ stdout, status }).toEqual({ stdout: '', status: 0 });
});
