import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DandelionError } from '../../shared/errors.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import { beginDeployment, releaseDeployment } from '../../shared/stores/deployments.ts';
import { promoteChampion, readChampion } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { openTracker } from '../../shared/stores/tracking.ts';
import { canaryPolicy, readDeploySettings } from './config.ts';
import { runDeployment } from './phases.ts';
import type { Rollout, Route } from './rollout.ts';
import { createPointerRollout } from './rollout-pointer.ts';

const [first, second] = ['v0000000001', 'v0000000002'] as const;
let stores: TestStores;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 12, grass: 12 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  for (const version of [first, second]) await storeDrawnModel(stores, { name: 'plants', version, dataset });
});
afterAll(() => stores.drop());

/** The rollout without Kubernetes, and a Service that is not there when it is first written to. */
function deletedOnce(changes: Partial<Rollout> = {}) {
  const pointer = createPointerRollout(stores.objects);
  const prepared: string[] = [];
  const routed: Route[][] = [];
  let isThere = false;
  const rollout: Rollout = {
    ...{ ...pointer, ...changes },
    async prepare(wanted) {
      prepared.push(wanted.version);
      await (changes.prepare ?? pointer.prepare)(wanted);
    },
    async route(routes) {
      if (isThere) return void routed.push([...routes]);
      isThere = true;
      throw new DandelionError('service-missing', 'The Service predict was deleted meanwhile.');
    },
  };
  return { rollout, prepared, routed };
}

async function deploy(version: string, rollout: Rollout) {
  const settings = readDeploySettings(stores.env);
  const policy = canaryPolicy(settings);
  const wanted = { id: `deploy-${version}`, model: 'plants', version, kind: 'deploy' as const, policy };
  const context = {
    signal: new AbortController().signal,
    log: { info: () => {} },
    progress: () => {},
  } as unknown as FunctionContext;
  const tracker = openTracker(settings);
  const begun = await beginDeployment(stores.db, wanted);
  const ended = await runDeployment({
    ...{ ...begun, policy, rollout, context },
    stores: { objects: stores.objects, tracker, db: stores.db },
  });
  await releaseDeployment(stores.db, begun.lease);
  return ended;
}

describe('a deployment whose Service somebody deletes', () => {
  it('begins again, and serves', async () => {
    const { rollout, prepared, routed } = deletedOnce();
    const { phase, decisions } = await deploy(first, rollout);
    expect(phase).toBe('done');
    expect(decisions.map(({ decision }) => decision)).toContain('begun again');
    expect(prepared).toEqual([first, first]);
    expect(routed).toEqual([[{ revision: first, version: first, share: 100, tag: 'champion' }]]);
    expect((await readChampion(stores.objects, 'plants'))?.champion.version).toBe(first);
  });

  it('gives the version before it a Service again when it is taken back', async () => {
    await promoteChampion(stores.objects, 'plants', first);
    const { rollout, prepared, routed } = deletedOnce({
      canary: true,
      async prepare({ version }) {
        if (version === second) throw new DandelionError('revision-failed', 'exit code 1');
      },
    });
    const { phase } = await deploy(second, rollout);
    expect(phase).toBe('rolled-back');
    expect(prepared).toEqual([second, first]);
    expect(routed).toEqual([[{ revision: first, version: first, share: 100, tag: 'champion' }]]);
    expect((await readChampion(stores.objects, 'plants'))?.champion.version).toBe(first);
  });
});
