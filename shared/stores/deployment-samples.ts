import type { Database } from './database.ts';
import type { Deployment } from './deployments.ts';
import { query } from './outage.ts';

/** One synthetic request. */
export interface DeploymentSample {
  version: string;
  ok: boolean;
  latencyMs: number;
}

/** Keeps what was asked in the present stage, so that an attempt that goes on need not ask again. */
export async function saveSamples(
  db: Database,
  deployment: Deployment,
  samples: readonly DeploymentSample[],
): Promise<void> {
  if (samples.length === 0) return;
  const rows = samples.map(({ version, ok, latencyMs }) => ({
    ...{ deployment: deployment.id, stage: deployment.stage },
    ...{ version, ok, latency_ms: latencyMs },
  }));
  await query(db, () => db`insert into deployment_samples ${db(rows)}`);
}

/** Answers of one version in the present stage: synthetic ones, and those that the prediction log tells of. */
export async function readSamples(
  db: Database,
  deployment: Deployment,
  version: string,
): Promise<{ answers: number; errors: number; latenciesMs: number[] }> {
  const rows = await query(
    db,
    () => db<{ ok: boolean; latencyMs: number; weight: number }[]>`
      select ok, latency_ms as "latencyMs", 1::float8 as weight from deployment_samples
      where deployment = ${deployment.id} and stage = ${deployment.stage} and version = ${version}`,
  );
  const all = [...rows, ...(await loggedSamples(db, deployment, version))];
  const sum = (of: typeof all) => Math.round(of.reduce((total, { weight }) => total + weight, 0));
  return {
    answers: sum(all),
    errors: sum(all.filter(({ ok }) => !ok)),
    latenciesMs: all.filter(({ ok }) => ok).map(({ latencyMs }) => latencyMs),
  };
}

function loggedSamples(db: Database, deployment: Deployment, version: string) {
  return query(
    db,
    // A synthetic request carries the deployment's id as its trace: it is counted already.
    () => db<{ ok: boolean; latencyMs: number; weight: number }[]>`
      select outcome = 'answered' as ok, latency_ms::float8 as "latencyMs", weight::float8 as weight
      from predictions where model = ${deployment.model} and version = ${version}
        and outcome in ('answered', 'failed') and trace_id is distinct from ${deployment.id}
        and made_at >= (select phase_since from deployments where id = ${deployment.id})
      order by made_at desc limit 10000`,
  );
}
