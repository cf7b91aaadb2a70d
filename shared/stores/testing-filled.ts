import type { Database } from './database.ts';

/**
 * Fills a database as many photos would: images with random perceptual hashes, one ingestion of them all, and as many
 * finished steps and notices. Features are left to `storeFeatures`.
 *
 * @param photos their digests are `shaOfPhoto` of 0 to `photos - 1`
 */
export async function fillDatabase(db: Database, model: string, photos: number): Promise<void> {
  const last = photos - 1;
  await db`
    insert into images (model, sha256, source, label, size_bytes, width, height, format, perceptual_hash)
    select ${model}, encode(sha256(n::text::bytea), 'hex'), n || '.jpg', case when n % 2 = 0 then 'dandelion' else 'grass' end,
      20000, 640, 480, 'jpeg', left(encode(sha256(('hash ' || n)::bytea), 'hex'), 16)
    from generate_series(0, ${last}::int) n`;
  await db`
    insert into ingestion_images (ingestion, source, model, sha256, label)
    select ${model}, source, model, sha256, label from images where model = ${model}`;
  await db`
    insert into steps (id, function, source, event_id, event, event_digest, status, attempt, final, finished_at)
    select 'filled-' || n, 'train', '/filled', n::text, '{}', n::text, 'succeeded', 1, true, now()
    from generate_series(0, ${last}::int) n`;
  await db`
    insert into outbox (id, function, run, event, refusal)
    select 'filled-' || n, 'train', 'filled-' || n, '{}', 'nobody took it' from generate_series(0, ${last}::int) n`;
  // Statistics that the server would gather within a minute by itself.
  await db.unsafe('analyze');
}
