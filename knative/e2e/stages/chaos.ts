import { setTimeout as sleep } from 'node:timers/promises';
import { pipelineFunctions } from '../../../shared/local/pipeline.ts';
import { auditChains, followChain, retrainRequest, send, storePhotos, tally } from '../pipelines.ts';
import type { Suite } from '../stage.ts';
import { measured, type Row, row } from '../table.ts';

const TIMEOUT_MS = 900_000;
const KILL_EVERY_MS = 4000;

/** Pods of functions are killed at random while chains go through; afterwards everything was done, and once. */
export async function chaos(suite: Suite): Promise<Row[]> {
  const { cluster, chaosChains, say } = suite;
  const before = await tally(cluster);
  const requests = [];
  let kills = 0;
  const startedAt = performance.now();
  for (let index = 0; index < chaosChains; index++) {
    const request = retrainRequest(cluster.model, await storePhotos(cluster, 30, 1000 * (index + 1)));
    requests.push(request);
    await send(cluster, request);
    let ended = false;
    const killing = (async () => {
      while (!ended) {
        await sleep(KILL_EVERY_MS * (0.5 + Math.random()));
        const pods = (await Promise.all(pipelineFunctions.map((name) => cluster.podsOf(name)))).flat();
        const victim = pods[Math.floor(Math.random() * pods.length)];
        // No more than a chain can be hit and still end.
        if (ended || victim === undefined || kills >= 5 * (index + 1)) continue;
        await cluster.kill(victim);
        kills += 1;
        say(`  killed ${victim.metadata?.name}`);
      }
    })();
    try {
      await followChain(cluster, request, { timeoutMs: TIMEOUT_MS });
    } finally {
      ended = true;
      await killing;
    }
  }
  const tookS = (performance.now() - startedAt) / 1000;
  const { lost, doubled } = await auditChains(cluster, requests, before);
  for (const fault of [...lost, ...doubled]) say(`  ${fault}`);
  return [
    row(
      `steps lost / doubled, ${kills} pods killed in ${requests.length} chains`,
      `${lost.length} / ${doubled.length}`,
      '0 / 0',
      lost.length + doubled.length === 0 && kills > 0,
    ),
    measured('time of these chains', `${tookS.toFixed(0)} s`),
  ];
}
