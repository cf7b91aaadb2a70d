import type { Problem } from '../errors.ts';
import { digestOf, type Event } from '../events.ts';

export type StepStatus = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

export interface StepProgress {
  done: number;
  total: number;
  note?: string;
}

export interface StepRun {
  id: string;
  function: string;
  source: string;
  eventId: string;
  event: Event;
  status: StepStatus;
  /** Counts from 1; 0 never occurs in a stored run. */
  attempt: number;
  /** True when the answer stands: a repeat of the event is answered with it. */
  final: boolean;
  /** True when nobody works on an unfinished run, so that whoever sees it may take it over. */
  abandoned: boolean;
  leaseOwner: string | null;
  progress: StepProgress | null;
  result: Event | null;
  problem: Problem | null;
  /** ISO 8601, UTC. `startedAt` is that of the current attempt. */
  createdAt: string;
  startedAt: string | null;
  updatedAt: string;
  finishedAt: string | null;
}

/**
 * Digest of what an event asks for: type, subject and data (JSON with sorted keys, or bytes). Left out are `time`,
 * the content type's spelling, trace context and all other extensions, which senders and brokers may change when
 * they send the same event again.
 */
export function eventDigest(event: Event): string {
  const data = event.data instanceof Uint8Array ? event.data : canonicalJson(event.data);
  return digestOf(event.type, event.subject ?? '', data);
}

/** A row of the table `steps`, as selected by the ledger. */
export interface StepRow {
  id: string;
  function: string;
  source: string;
  event_id: string;
  event: Event;
  status: StepStatus;
  attempt: number;
  final: boolean;
  abandoned: boolean;
  lease_owner: string | null;
  progress: StepProgress | null;
  result: Event | null;
  problem: Problem | null;
  created_at: Date;
  started_at: Date | null;
  updated_at: Date;
  finished_at: Date | null;
}

/** JSON cannot hold bytes; they are kept as `data_base64`, as in the JSON event format. */
export function storable(event: Event): Event {
  if (!(event.data instanceof Uint8Array)) return event;
  const { data, ...attributes } = event;
  return { ...attributes, data_base64: Buffer.from(event.data).toString('base64') };
}

/** The event as it was before {@link storable}. */
export function restored(event: Event): Event {
  if (event.data_base64 === undefined) return event;
  const { data_base64: encoded, ...attributes } = event;
  return { ...attributes, data: Buffer.from(encoded, 'base64') };
}

/** A row as the rest of the product sees it. */
export function toRun(row: StepRow): StepRun {
  return {
    id: row.id,
    function: row.function,
    source: row.source,
    eventId: row.event_id,
    event: restored(row.event),
    status: row.status,
    attempt: row.attempt,
    final: row.final,
    abandoned: row.abandoned,
    leaseOwner: row.lease_owner,
    progress: row.progress,
    result: row.result === null ? null : restored(row.result),
    problem: row.problem,
    createdAt: row.created_at.toISOString(),
    startedAt: row.started_at?.toISOString() ?? null,
    updatedAt: row.updated_at.toISOString(),
    finishedAt: row.finished_at?.toISOString() ?? null,
  };
}

/** Text handed to `::text::json`: the type `json` keeps key order and, unlike `jsonb`, takes U+0000. */
export function asJson(value: unknown): string {
  return JSON.stringify(value);
}

function canonicalJson(value: unknown): string {
  return (
    JSON.stringify(value, (_key, inner: unknown) =>
      typeof inner === 'object' && inner !== null && !Array.isArray(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
    ) ?? ''
  );
}
