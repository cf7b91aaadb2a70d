import { setTimeout as sleep } from 'node:timers/promises';
import type { Event } from '../events.ts';
import { openDatabase } from './database.ts';
import { listCandidates, storeDataset } from './datasets.ts';
import { beginIngestion, recordImages, withdrawEntries } from './images.ts';
import { nameOutage } from './outage.ts';
import { claimStep, finishStep } from './steps.ts';

/**
 * A process that writes all the time in every way that the functions do, whatever its connections come to, and says
 * on its output how often it came through and how often it was kept from it. Any other error ends it.
 */
const db = await openDatabase(process.env.DATABASE_URL ?? '');
const model = 'flowers';
const at = Array.from({ length: 50 }, (_, index) => index.toString(16).padStart(64, '0'));
let done = 0;
let kept = 0;

async function write(round: number): Promise<void> {
  const id = `ingestion-${round % 7}`;
  const ingestion = { id, model, source: { kind: 'folder' as const, uri: 'file:///photos' } };
  const facts = { sizeBytes: 1, width: 1, height: 1, format: 'jpeg', perceptualHash: '0'.repeat(16) };
  await beginIngestion(db, ingestion);
  const photos = at.map((sha256, index) => ({
    ...facts,
    sha256,
    source: `${index}.jpg`,
    label: `${index % 2}`,
  }));
  await recordImages(db, ingestion, photos);
  await withdrawEntries(db, ingestion, ['0.jpg']);
  await listCandidates(db, id);
  const images = at.map((sha256, index) => ({
    sha256,
    label: `${round}-${index % 2}`,
    group: sha256,
    split: 'train' as const,
  }));
  await storeDataset(db, { model, ingestion: id, seed: 1, images });
  const event: Event = { specversion: '1.0', type: 't', source: '/t', id: `${round}`, data: { round } };
  const { run, claimed } = await claimStep(db, { function: 'train', owner: 'w', leaseMs: 60_000, event });
  if (!claimed) return;
  const notices = [`notice-${round}-1`, `notice-${round}-2`].map((id) => ({ id, event: { ...event, id } }));
  await finishStep(db, run, { status: 'succeeded', result: undefined }, notices);
}

async function writer(first: number): Promise<void> {
  for (let round = first; ; round += 4) {
    try {
      await write(round);
      done += 1;
    } catch (error) {
      const { code } = nameOutage(error, db) as { code?: string };
      if (code?.startsWith('database-') !== true) throw error;
      kept += 1;
      await sleep(5);
    }
  }
}

setInterval(() => process.stdout.write(`${JSON.stringify({ done, kept })}\n`), 100);
await Promise.all([0, 1, 2, 3].map(writer));
