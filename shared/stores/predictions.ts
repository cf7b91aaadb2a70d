import type { PredictionRecord } from '../events.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { asJson } from './step-records.ts';

/** What one revision of predict did with one version of a model. Counts make up for sampling, and so may be broken. */
export interface PredictionCounts {
  /** Null: no model was there to answer. */
  version: string | null;
  /** Null where predict runs without Knative. */
  revision: string | null;
  answered: number;
  /** Bad input (4xx): says nothing against the version. */
  refused: number;
  /** Our faults (5xx). */
  failed: number;
  /** Of answers; null when there is none. */
  p50Ms: number | null;
  p95Ms: number | null;
}

/** How far ahead a pod's clock may be; what is later counts as made now, or it would stay in every window. */
const CLOCK_SKEW = '1 minute';

/** What the log holds of records after they were stored. */
export interface KeptPredictions {
  /** How many were not there before. */
  added: number;
  /** All of them, each with the time that the log has for it. */
  records: PredictionRecord[];
}

/**
 * Stores records of the prediction log; one that is there already changes nothing.
 *
 * @throws DandelionError `database-unavailable`
 */
export async function savePredictions(
  db: Database,
  records: readonly PredictionRecord[],
): Promise<KeptPredictions> {
  const rows = records.map(({ model, embedding, sketch, sketchBytes, schemaVersion = 1, ...record }) => ({
    ...record,
    model: model.name,
    version: model.version,
    embeddingDigest: embedding?.digest,
    schemaVersion,
    sketchId: sketch?.id ?? sketchBytes?.id,
    sketch: sketch?.values,
    sketchBytes: sketchBytes?.float32,
  }));
  const others = await query(
    db,
    () => db<{ id: string; madeAt: Date; isNew: boolean }[]>`
      with sent as (
        select *, case when time > now() + ${CLOCK_SKEW}::interval then now() else time end as made_at
        from json_to_recordset(${asJson(rows)}::text::json) as record (id text, time timestamptz, model text,
          version text, revision text, outcome text, code text, label text, scores jsonb, "latencyMs" real,
          weight real, input jsonb, "embeddingDigest" text, "clientHash" text, "traceId" text,
          "schemaVersion" int, "sketchId" text, sketch real[], "sketchBytes" text)
      ), added as (
        insert into predictions (id, made_at, model, version, revision, outcome, code, label, scores, latency_ms,
          weight, input, embedding_digest, client_hash, trace_id, schema_version, sketch_id, sketch, sketch_bytes)
        select id, made_at, model, version, revision, outcome, code, label, scores, "latencyMs", weight, input,
          "embeddingDigest", "clientHash", "traceId", "schemaVersion", "sketchId", sketch,
          decode("sketchBytes", 'base64')
        from sent
        on conflict (id) do nothing
        returning id, made_at
      )
      -- Of most there is nothing to tell: they are new, and kept under their own time.
      select id, coalesce(added.made_at, earlier.made_at, sent.made_at) as "madeAt", added.id is not null as "isNew"
      from sent left join added using (id) left join predictions as earlier using (id)
      where added.id is null or added.made_at <> sent.time`,
  );
  const otherOf = new Map(others.map((row) => [row.id, row]));
  const known = [...otherOf.values()].filter(({ isNew }) => !isNew).length;
  return {
    added: new Set(records.map(({ id }) => id)).size - known,
    records: records.map((record) => {
      const other = otherOf.get(record.id);
      return other === undefined ? record : { ...record, time: other.madeAt.toISOString() };
    }),
  };
}

/**
 * Counts what was asked of a model since a time, by version and revision: what a canary is judged by. Records arrive
 * some seconds after the answers they tell of.
 *
 * @throws DandelionError `database-unavailable`
 */
export function countPredictions(
  db: Database,
  filter: { model: string; since: Date; version?: string },
): Promise<PredictionCounts[]> {
  const ofVersion = filter.version === undefined ? db`true` : db`version = ${filter.version}`;
  return query(
    db,
    () => db<PredictionCounts[]>`
      select version, revision,
        coalesce(sum(weight) filter (where outcome = 'answered'), 0)::float8 as answered,
        coalesce(sum(weight) filter (where outcome = 'refused'), 0)::float8 as refused,
        coalesce(sum(weight) filter (where outcome = 'failed'), 0)::float8 as failed,
        percentile_cont(0.5) within group (order by latency_ms) filter (where outcome = 'answered') as "p50Ms",
        percentile_cont(0.95) within group (order by latency_ms) filter (where outcome = 'answered') as "p95Ms"
      from predictions
      where model = ${filter.model} and made_at >= ${filter.since} and ${ofVersion}
      group by version, revision order by version, revision`,
  );
}

/** Deletes records of predictions made longer ago than that; returns how many. */
export async function purgePredictions(db: Database, olderThanMs: number): Promise<number> {
  const age = db`${olderThanMs}::float8 * interval '1 millisecond'`;
  const rows = await query(db, () => db`delete from predictions where made_at < now() - ${age}`);
  return rows.count;
}
