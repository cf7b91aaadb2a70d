import { digestOf, UNKNOWN } from '../events.ts';
import { wilsonInterval } from '../vision/metrics.ts';
import type { PhotoFacts } from '../vision/photo-facts.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { asJson } from './step-records.ts';

export type FeedbackStatus = 'waiting' | 'accepted' | 'rejected';

/** What someone said about an answer of predict. */
export interface GivenFeedback {
  /** Id of the answer. */
  prediction: string;
  /** Keyed hash of who said it; empty where clients are not told apart. */
  client: string;
  model: string;
  version: string;
  /** What the model said. */
  predicted: string;
  /** What it is; null: none of the model's classes. */
  label: string | null;
  /** Null unless its owner agreed that the photo is kept. */
  photo: PhotoFacts | null;
}

export interface Feedback extends GivenFeedback {
  id: string;
  status: FeedbackStatus;
  /** What the prediction log has under that id: an answer that nobody gave is not in it. */
  logged: { version: string; label: string; score: number | null } | null;
  givenAt: Date;
  reviewedAt: Date | null;
}

/** Share of right answers of a model's version, as far as people said so and it was reviewed. */
export interface LiveAccuracy {
  version: string;
  reviewed: number;
  correct: number;
  accuracy: number;
  /** Wilson's 95 % interval. */
  interval: [number, number];
}

/** What became of feedback that was saved. */
export interface SavedFeedback {
  id: string;
  status: FeedbackStatus;
  /** A photo that this feedback had before and no longer has. */
  replacedPhoto: string | null;
}

/** The id of what a client says about an answer; the same again is the same feedback. */
export function feedbackId({ prediction, client }: Pick<GivenFeedback, 'prediction' | 'client'>): string {
  return digestOf('feedback', prediction, client).slice(0, 32);
}

/** "unknown" is what predict says of none of the classes. */
export function isCorrect({ predicted, label }: Pick<GivenFeedback, 'predicted' | 'label'>): boolean {
  return label === (predicted === UNKNOWN ? null : predicted);
}

/**
 * Stores feedback; the same client's next one on the same answer takes its place, until it was reviewed.
 *
 * @param mostWaiting may wait for a review; the second is of one client, where clients are told apart
 * @returns undefined when this would be one more
 * @throws DandelionError `database-unavailable`
 */
export async function saveFeedback(
  db: Database,
  given: GivenFeedback,
  mostWaiting: { ofAll: number; ofClient: number },
): Promise<SavedFeedback | undefined> {
  const { prediction, client, model, version, predicted, label, photo } = given;
  const { ofAll, ofClient } = mostWaiting;
  const id = feedbackId(given);
  const photoJson = photo === null ? null : asJson(photo);
  // What was there before is locked, or a verdict that comes meanwhile would go unseen.
  const [row] = await query(
    db,
    () => db<{ status: FeedbackStatus; before: string | null }[]>`
      with earlier as (select status, sha256 from feedback where id = ${id} for update),
      saved as (
        insert into feedback (id, prediction, client, model, version, predicted, label, sha256, photo)
        select ${id}, ${prediction}, ${client}, ${model}, ${version}, ${predicted}, ${label},
          ${photo?.sha256 ?? null}, ${photoJson}::text::json
        where exists (select from earlier)
          or (select count(*) from (select from feedback where status = 'waiting' limit ${ofAll}) w) < ${ofAll}
            and (${client} = '' or ${ofClient} > (
              select count(*) from (select from feedback where client = ${client} and status = 'waiting' limit ${ofClient}) c))
        on conflict (id) do update set model = excluded.model, version = excluded.version,
          predicted = excluded.predicted, label = excluded.label, sha256 = excluded.sha256, photo = excluded.photo,
          given_at = now()
        where feedback.status = 'waiting'
        returning status)
      select coalesce(saved.status, earlier.status) as status, earlier.sha256 as before
      from saved full join earlier on true`,
  );
  if (row === undefined) return undefined;
  const isReplaced = row.status === 'waiting' && row.before !== (photo?.sha256 ?? null);
  return { id, status: row.status, replacedPhoto: isReplaced ? row.before : null };
}

/** Feedback of one status, the earliest first, and how much there is. */
export async function listFeedback(
  db: Database,
  filter: { status: FeedbackStatus; limit: number; client?: string },
): Promise<{ feedback: Feedback[]; total: number }> {
  const wanted = db`f.status = ${filter.status} and ${filter.client === undefined ? db`true` : db`f.client = ${filter.client}`}`;
  const [feedback, [count]] = await query(db, () =>
    Promise.all([
      db<
        Feedback[]
      >`select ${columns(db)} from ${joined(db)} where ${wanted} order by given_at, f.id limit ${filter.limit}`,
      db<{ total: number }[]>`select count(*)::int as total from feedback f where ${wanted}`,
    ]),
  );
  return { feedback, total: count?.total ?? 0 };
}

/** One feedback; `undefined` when there is none of that id. */
export async function findFeedback(db: Database, id: string): Promise<Feedback | undefined> {
  const [row] = await query(
    db,
    () => db<Feedback[]>`select ${columns(db)} from ${joined(db)} where f.id = ${id}`,
  );
  return row;
}

/** What a reviewer decides; `label`: what it is as the reviewer sees it, null for none of the classes. */
export type FeedbackVerdict = { status: 'accepted'; label: string | null } | { status: 'rejected' };

/**
 * Settles feedback that waits. An accepted one takes version and answer from the prediction log, where they are in it,
 * rather than from its sender; its photo becomes one of the model's, under the reviewed label, which no manifest changes
 * from then on.
 *
 * @param seen what the verdict is about: what its sender has changed since is not settled
 * @returns false when it does not wait, or is another one by now
 */
export async function settleFeedback(
  db: Database,
  seen: Pick<Feedback, 'id' | 'givenAt'>,
  verdict: FeedbackVerdict,
): Promise<boolean> {
  const isSeen = db`f.id = ${seen.id} and f.status = 'waiting'
    and date_trunc('milliseconds', f.given_at) = ${seen.givenAt}`;
  if (verdict.status === 'rejected') {
    const rejected = await query(
      db,
      () => db`
        update feedback f set status = 'rejected', reviewed_at = now(), sha256 = null, photo = null
        where ${isSeen}`,
    );
    return rejected.count > 0;
  }
  const { label } = verdict;
  // What is none of the classes teaches nothing: its photo is not kept.
  const keptPhoto = (column: string) => (label === null ? db`null` : db`f.${db(column)}`);
  const accepted = await query(
    db,
    () => db`
      with accepted as (
        update feedback f set status = 'accepted', reviewed_at = now(), label = ${label},
          sha256 = ${keptPhoto('sha256')}, photo = ${keptPhoto('photo')},
          version = coalesce(p.version, f.version), predicted = coalesce(p.label, f.predicted)
        from feedback g left join predictions p on p.id = g.prediction and p.model = g.model
        where g.id = f.id and ${isSeen}
        returning f.*),
      photo as (
        insert into images (model, sha256, source, label, label_source, size_bytes, width, height, format, perceptual_hash)
        select model, sha256, 'feedback:' || id, label, 'feedback', (photo->>'sizeBytes')::int, (photo->>'width')::int,
          (photo->>'height')::int, photo->>'format', photo->>'perceptualHash'
        from accepted where sha256 is not null
        on conflict (model, sha256) do update set label = excluded.label, label_source = 'feedback')
      select id from accepted`,
  );
  return accepted.length > 0;
}

/** True while a photo belongs to feedback that waits: this one, or any without an `id`. */
export async function isPhotoWaiting(
  db: Database,
  { sha256, id }: { sha256: string; id?: string },
): Promise<boolean> {
  const ofThis = id === undefined ? db`true` : db`id = ${id}`;
  const rows = await query(
    db,
    () => db`select from feedback where sha256 = ${sha256} and status = 'waiting' and ${ofThis} limit 1`,
  );
  return rows.length > 0;
}

/** How often each version of a model was right, by reviewed feedback alone; the latest reviewed first. */
export async function measureLiveAccuracy(db: Database, model: string): Promise<LiveAccuracy[]> {
  // "unknown" is what predict says of none of the classes.
  const rows = await query(
    db,
    () => db<{ version: string; reviewed: number; correct: number }[]>`
      select version, count(*)::int as reviewed,
        (count(*) filter (where label is not distinct from nullif(predicted, ${UNKNOWN})))::int as correct
      from feedback where model = ${model} and status = 'accepted'
      group by version order by max(reviewed_at) desc, version`,
  );
  return rows.map(({ version, reviewed, correct }) => ({
    ...{ version, reviewed, correct, accuracy: correct / reviewed },
    interval: wilsonInterval(correct, reviewed),
  }));
}

/** How much feedback there is of each status, zeros among them. */
export async function countFeedback(db: Database, model: string): Promise<Record<FeedbackStatus, number>> {
  const rows = await query(
    db,
    () => db<{ status: FeedbackStatus; count: number }[]>`
      select status, count(*)::int from feedback where model = ${model} group by status`,
  );
  return {
    waiting: 0,
    accepted: 0,
    rejected: 0,
    ...Object.fromEntries(rows.map((row) => [row.status, row.count])),
  };
}

const joined = (db: Database) =>
  db`feedback f left join predictions p on p.id = f.prediction and p.model = f.model and p.version is not null and p.label is not null`;

const columns = (db: Database) => db`
  f.id, f.prediction, f.client, f.model, f.version, f.predicted, f.label, f.photo, f.status, f.given_at as "givenAt",
  f.reviewed_at as "reviewedAt",
  case when p.id is null then null else json_build_object('version', p.version, 'label', p.label, 'score', (p.scores ->> p.label)::float8) end as logged`;
