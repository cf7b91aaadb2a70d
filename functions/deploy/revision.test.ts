import { describe, expect, it } from 'vitest';
import type { Deployment } from '../../shared/stores/deployments.ts';
import { makeRevision } from './revision.ts';
import type { Rollout } from './rollout.ts';
import type { Work } from './work.ts';

const [first, second] = ['v0000000001', 'v0000000002'] as const;

/** Revisions as Knative keeps them, in memory; each is named after its version and the template. */
function revisionsOf({ serving, template }: { serving: string; template: string }) {
  const there = new Map<string, string>([first, second].map((version) => [`${version}-old`, version]));
  const rollout: Partial<Rollout> = {
    canary: true,
    serving: async () => ({ version: serving, revision: `${serving}-old` }),
    find: async (_model, version) => [...there].findLast(([, of]) => of === version)?.[0],
    revisionOf: async (_model, version) => `${version}-${template}`,
    prepare: async ({ revision, version }) => void there.set(revision, version),
  };
  return { rollout, there };
}

/** Goes through the phase as the state machine does: until it leads to another. */
async function rollBackTo(version: string, { rollout }: { rollout: Partial<Rollout> }): Promise<Deployment> {
  const row = { model: 'plants', version, kind: 'rollback', phase: 'revision', stage: 0 };
  let deployment = {
    ...row,
    revision: null,
    previous: null,
    previousRevision: null,
  } as unknown as Deployment;
  while (deployment.phase === 'revision') {
    const work = { deployment, rollout, lease: { token: '1' } } as unknown as Work;
    const { decided: _decided, ...change } = await makeRevision(work);
    deployment = { ...deployment, ...change };
  }
  return deployment;
}

describe('a rollback', () => {
  it('takes the revision that is still there, and serves from it at once', async () => {
    const revisions = revisionsOf({ serving: second, template: 'new' });
    const { revision, phase } = await rollBackTo(first, revisions);
    expect([revision, phase]).toEqual([`${first}-old`, 'champion']);
    expect(revisions.there.size).toBe(2);
  });

  it('to the version that serves makes a revision of the new template, and tries it', async () => {
    const revisions = revisionsOf({ serving: first, template: 'new' });
    const { revision, previousRevision, phase } = await rollBackTo(first, revisions);
    expect([revision, previousRevision, phase]).toEqual([`${first}-new`, `${first}-old`, 'check']);
    expect(revisions.there.get(`${first}-new`)).toBe(first);
  });

  it('to the version that serves changes nothing where the template is the same', async () => {
    const revisions = revisionsOf({ serving: first, template: 'old' });
    expect(await rollBackTo(first, revisions)).toMatchObject({ revision: `${first}-old` });
    expect(revisions.there.size).toBe(2);
  });
});
