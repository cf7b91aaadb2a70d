import { DandelionError } from '../errors.ts';
import { digestOf } from '../events.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { asJson } from './step-records.ts';

/** Where a deployment stands. `done` and `rolled-back` are its ends, `superseded` is one that nobody finished. */
export type DeploymentPhase =
  | 'revision'
  | 'check'
  | 'canary'
  | 'champion'
  | 'traffic'
  | 'alias'
  | 'roll-back'
  | 'done'
  | 'rolled-back'
  | 'superseded';

/** What was decided, and why. */
export interface Decision {
  phase: string;
  decision: string;
  reason: string;
  evidence: Record<string, unknown>;
  at: string;
}

/** One deployment, as far as it came. */
export interface Deployment {
  id: string;
  model: string;
  version: string;
  kind: 'deploy' | 'rollback';
  /** The version and the revision that served when it began. */
  previous: string | null;
  previousRevision: string | null;
  revision: string | null;
  phase: DeploymentPhase;
  /** Index of the canary stage. */
  stage: number;
  phaseSince: Date;
  policy: unknown;
  /** Why it is rolled back. */
  reason: string | null;
  evidence: Record<string, unknown> | null;
  attempts: number;
  decisions: Decision[];
}

/** The right to deploy a model; `token` fences every write. */
export interface DeploymentLease {
  model: string;
  deployment: string;
  token: string;
}

const LEASE = '60 seconds';
/**
 * A deployment that moved traffic and rests this long is not waited for: whoever delivered its event gave it up. One
 * that moved none is waited for only while someone works on it.
 */
const ABANDONED = '10 minutes';

/**
 * Name of the revision that a version gets from a template of the predict Service. It differs with the template: a new
 * image is a deployment, too.
 */
export function revisionName(service: string, version: string, template: string): string {
  return `${service}-${version}-${digestOf(template).slice(0, 8)}`;
}

/** A deployment, as far as it came. */
export async function readDeployment(db: Database, id: string): Promise<Deployment | undefined> {
  const [row] = await query(
    db,
    () => db<Deployment[]>`select ${columns(db)} from deployments where id = ${id}`,
  );
  return row;
}

/** @returns whether nothing is left to do */
export function hasEnded({ phase }: Deployment): boolean {
  return phase === 'done' || phase === 'rolled-back' || phase === 'superseded';
}

/** The deployment of a model that has not ended, whoever works on it. */
export async function openDeployment(db: Database, model: string): Promise<Deployment | undefined> {
  const [row] = await query(
    db,
    () => db<Deployment[]>`
      select ${columns(db)} from deployments where model = ${model} and finished_at is null
      order by created_at desc limit 1`,
  );
  return row;
}

/**
 * Takes the lease of the model and gets the deployment's row: a new one, or where an earlier attempt left it. A
 * rollback does not wait for a deployment: it takes its place.
 *
 * @throws DandelionError `deploy-busy` naming the deployment that is under way, `lease-lost`
 */
export async function beginDeployment(
  db: Database,
  wanted: Pick<Deployment, 'id' | 'model' | 'version' | 'kind' | 'policy'>,
): Promise<{ deployment: Deployment; lease: DeploymentLease }> {
  const { id, model, version, kind } = wanted;
  const lease = { model, deployment: id, token: await takeLease(db, wanted) };
  // Each is fenced by the lease, which may pass on between two; cut off there, the next attempt repeats them.
  await query(
    db,
    () => db`
      update deployments set phase = 'superseded', finished_at = now(), updated_at = now()
      where model = ${model} and id <> ${id} and finished_at is null and ${stillHeld(db, lease)}`,
  );
  await query(
    db,
    () => db`
      insert into deployments (id, model, version, kind, phase, policy)
      select ${id}::text, ${model}::text, ${version}::text, ${kind}::text, 'revision',
        ${asJson(wanted.policy)}::text::json where ${stillHeld(db, lease)}
      on conflict (id) do nothing`,
  );
  const [deployment] = await query(
    db,
    () => db<Deployment[]>`
      update deployments set attempts = attempts + 1, updated_at = now()
      where id = ${id} and ${stillHeld(db, lease)} returning ${columns(db)}`,
  );
  if (deployment === undefined) throw lost(lease);
  return { deployment, lease };
}

/** One statement, so that of two who come together one gets it. @returns the fencing token */
async function takeLease(
  db: Database,
  { id, model, kind }: Pick<Deployment, 'id' | 'model' | 'kind'>,
): Promise<string> {
  const others = db`
    select id, version, phase from deployments
    where model = ${model} and id <> ${id} and finished_at is null
      and not (kind = 'deploy' and ${kind}::text = 'rollback')`;
  const waitedFor = db`
    ${others} and phase not in ('revision', 'check') and updated_at > now() - ${ABANDONED}::interval`;
  const [held] = await query(
    db,
    () => db<{ token: string }[]>`
      insert into deployment_leases (model, deployment, token, until)
      select ${model}::text, ${id}::text, 1, now() + ${LEASE}::interval where not exists (${waitedFor})
      on conflict (model) do update set deployment = excluded.deployment,
        token = deployment_leases.token + 1, until = excluded.until
      where deployment_leases.deployment = ${id} or deployment_leases.until < now() or exists (
        select from deployments d where d.id = deployment_leases.deployment
          and d.kind = 'deploy' and ${kind}::text = 'rollback')
      returning token::text`,
  );
  if (held !== undefined) return held.token;
  const [other] = await query(
    db,
    () => db<{ version: string; phase: string }[]>`${others} order by created_at desc limit 1`,
  );
  throw busy(model, other);
}

/** Prolongs the lease. @throws DandelionError `lease-lost` when another attempt holds it */
export async function renewDeployment(db: Database, lease: DeploymentLease): Promise<void> {
  const { count } = await query(
    db,
    () => db`
      update deployment_leases set until = now() + ${LEASE}::interval
      where model = ${lease.model} and deployment = ${lease.deployment} and token = ${lease.token}`,
  );
  if (count === 0) throw lost(lease);
}

/** Lets the next deployment begin at once. Harmless where the lease is lost. */
export async function releaseDeployment(db: Database, lease: DeploymentLease): Promise<void> {
  await query(
    db,
    () => db`
      update deployment_leases set until = now()
      where model = ${lease.model} and deployment = ${lease.deployment} and token = ${lease.token}`,
  );
}

/** What changes with a step of the state machine. */
export type DeploymentChange = Partial<
  Pick<Deployment, 'previous' | 'previousRevision' | 'revision' | 'phase' | 'stage' | 'reason' | 'evidence'>
> & { decision?: Decision };

/**
 * Writes a step of the state machine; a new phase or stage starts its clock.
 *
 * @throws DandelionError `lease-lost` when another attempt holds the deployment
 */
export async function advanceDeployment(
  db: Database,
  lease: DeploymentLease,
  current: Deployment,
  change: DeploymentChange,
): Promise<Deployment> {
  const next = { ...current, ...change };
  const moved = next.phase !== current.phase || next.stage !== current.stage;
  const ended = next.phase === 'done' || next.phase === 'rolled-back';
  const decisions = change.decision === undefined ? [] : [change.decision];
  const [row] = await query(
    db,
    () => db<Deployment[]>`
      update deployments set previous = ${next.previous}, previous_revision = ${next.previousRevision},
        revision = ${next.revision}, phase = ${next.phase}, stage = ${next.stage}, reason = ${next.reason},
        evidence = ${asJson(next.evidence)}::text::json,
        decisions = (decisions::jsonb || ${asJson(decisions)}::text::jsonb)::json,
        phase_since = ${moved ? db`now()` : db`phase_since`},
        finished_at = ${ended ? db`now()` : db`finished_at`}, updated_at = now()
      where id = ${current.id} and ${stillHeld(db, lease)} returning ${columns(db)}`,
  );
  if (row === undefined) throw lost(lease);
  return row;
}

/** Milliseconds since the phase or stage began, by the database's clock. */
export async function phaseAgeMs(db: Database, deployment: Deployment): Promise<number> {
  const [row] = await query(
    db,
    () => db<{ age: number }[]>`
      select (extract(epoch from now() - phase_since) * 1000)::float8 as age
      from deployments where id = ${deployment.id}`,
  );
  return row?.age ?? 0;
}

/** Every write names it, so that who has lost the lease writes nothing. */
function stillHeld(db: Database, { model, deployment, token }: DeploymentLease) {
  return db`exists (
    select from deployment_leases l where l.model = ${model} and l.deployment = ${deployment} and l.token = ${token})`;
}

function columns(db: Database) {
  return db`id, model, version, kind, previous, previous_revision as "previousRevision", revision, phase, stage,
    phase_since as "phaseSince", policy, reason, evidence, attempts, decisions`;
}

function busy(model: string, other: { version: string; phase: string } | undefined): DandelionError {
  const which = other === undefined ? 'another one' : `${other.version} (phase ${other.phase})`;
  return new DandelionError(
    'deploy-busy',
    `A deployment of ${model} is under way: ${which}. This one starts when that has ended.`,
    { retryAfterMs: 10_000 },
  );
}

function lost({ model }: DeploymentLease): DandelionError {
  return new DandelionError('lease-lost', `Another attempt goes on with the deployment of ${model}.`, {
    retryAfterMs: 1000,
  });
}
