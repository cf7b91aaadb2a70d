import { spawnSync } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withImages } from './cluster.ts';

const script = join(import.meta.dirname, 'cluster.ts');
let bin: string;
beforeEach(async () => {
  bin = await mkdtemp(join(tmpdir(), 'cluster-'));
  await symlink(process.execPath, join(bin, 'node'));
});
afterEach(() => rm(bin, { recursive: true, force: true }));

/** A program on the PATH that writes down what it was called with, and does what these lines say. */
async function program(name: string, lines: string): Promise<void> {
  const file = join(bin, name);
  await writeFile(file, `#!/bin/sh\necho "${name} $*" >> "${bin}/calls"\n${lines}\n`);
  await chmod(file, 0o755);
}

function cluster(...words: string[]) {
  const env = { PATH: bin, HOME: bin };
  return spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', script, ...words], {
    ...{ env, encoding: 'utf8' as const },
  });
}

describe('npm run cluster', () => {
  it('names every program that is missing, and where it is to be had', () => {
    const { status, stderr } = cluster();
    expect(status).toBe(2);
    for (const word of ['kubectl', 'Docker', 'kind', 'Minikube', '--context current']) {
      expect(stderr).toContain(word);
    }
  });

  it('names a Docker that is not running', async () => {
    await program('kubectl', 'exit 0');
    await program('kind', 'exit 0');
    await program('docker', 'exit 1');
    const { status, stderr } = cluster('--context', 'kind');
    expect([status, stderr]).toEqual([2, expect.stringContaining('start Docker')]);
  });

  it('refuses a context that it does not know', () => {
    expect(cluster('--context', 'eks')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('kind, minikube, current'),
    });
  });

  it('leaves a Knative alone that is there, and does nothing to it', async () => {
    const { stdout, calls } = await onCluster();
    expect(stdout).toContain('Knative Serving      there already, left alone');
    expect(stdout).toContain('Knative Eventing     there already, left alone');
    expect(calls.filter((call) => /https?:|patch/.test(call))).toEqual([]);
    expect(calls).toContain('kubectl apply --filename -');
  });

  it('says which step failed, why, and what helps', async () => {
    const { status, stdout, stderr } = await onCluster(
      'case "$*" in *brokers.eventing.knative.dev*) echo "timed out waiting" >&2; exit 1;; esac',
    );
    expect([status, stdout]).toEqual([2, expect.stringMatching(/\[\d\/8\] broker and triggers\s+failed/)]);
    expect(stderr).toContain('timed out waiting');
    expect(stderr).toContain('What helps: kubectl --namespace dandelion get brokers,triggers');
  });

  it('goes without waiting until Kubernetes looks again whether its pods are gone', async () => {
    const { status, stdout, calls } = await onCluster('', '--down');
    expect([status, stdout]).toEqual([0, expect.stringContaining('The namespace dandelion is gone')]);
    const [end, pods, change, wait] = calls.filter((call) => !call.includes('version'));
    expect(end).toMatch(/^kubectl delete namespace dandelion .*--wait=false/);
    expect(pods).toMatch(/^kubectl delete pods --all --namespace dandelion --grace-period 1 /);
    expect(change).toMatch(/^kubectl annotate namespace dandelion /);
    expect(wait).toMatch(/^kubectl wait --for delete namespace\/dandelion --timeout/);
  });

  it('says what helps when the namespace does not go', async () => {
    const { status, stderr } = await onCluster(
      'case "$*" in wait*) echo "timed out waiting for the condition" >&2; exit 1;; esac',
      '--down',
    );
    expect([status, stderr]).toEqual([
      2,
      expect.stringMatching(/timed out[\s\S]*What helps: kubectl get namespace/),
    ]);
  });

  /** With a kubectl in front of a cluster that has everything. */
  async function onCluster(more = '', ...words: string[]) {
    const answers = `
      case "$*" in
        "get customresourcedefinitions"*) echo customresourcedefinition/there; exit 0;;
        *"config current-context"*) echo somewhere; exit 0;;
      esac
      ${more}
      case "$*" in get*name) echo one; echo two;; esac
      exit 0`;
    await program('kubectl', answers);
    const result = cluster('--context', 'current', ...words);
    const calls = (await readFile(join(bin, 'calls'), 'utf8')).trim().split('\n');
    return { ...result, calls };
  }
});

it('names published images in all manifests, in the text of a template, too', () => {
  const manifests =
    "image: dev.local/dandelion-train:dev\n  service.yaml: |\n    image: 'dev.local/dandelion-predict:dev'";
  expect(withImages(manifests, 'ghcr.io/acme/dandelion-', '1.2.3')).toBe(
    "image: ghcr.io/acme/dandelion-train:1.2.3\n  service.yaml: |\n    image: 'ghcr.io/acme/dandelion-predict:1.2.3'",
  );
});
