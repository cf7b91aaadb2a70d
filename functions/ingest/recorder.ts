import type { Database } from '../../shared/stores/database.ts';
import {
  type IngestedImage,
  type Ingestion,
  type RejectedEntry,
  recordImages,
  recordRejections,
} from '../../shared/stores/images.ts';

const BATCH_ROWS = 25;
const BATCH_MS = 1000;

/** Writes what arrives to the database in small batches, so that a later attempt need not fetch it again. */
export interface Recorder {
  image(image: IngestedImage): Promise<void>;
  rejection(rejection: RejectedEntry): Promise<void>;
  /** Writes what is still waiting. */
  flush(): Promise<void>;
}

/** Opens the recorder of one attempt of an ingestion. */
export function openRecorder(db: Database, ingestion: Pick<Ingestion, 'id' | 'model'>): Recorder {
  let images: IngestedImage[] = [];
  let rejections: RejectedEntry[] = [];
  let lastWriteMs = Date.now();
  // One writer at a time: batches that overlap would wait on each other's rows.
  let writing: Promise<void> = Promise.resolve();

  const write = async (): Promise<void> => {
    const [imageBatch, rejectionBatch] = [images, rejections];
    [images, rejections] = [[], []];
    lastWriteMs = Date.now();
    await recordImages(db, ingestion, imageBatch);
    await recordRejections(db, ingestion.id, rejectionBatch);
  };
  const flush = (): Promise<void> => {
    const written = writing.then(write);
    writing = written.catch(() => {});
    return written;
  };
  const flushWhenDue = async (): Promise<void> => {
    const isDue = images.length + rejections.length >= BATCH_ROWS || Date.now() - lastWriteMs >= BATCH_MS;
    if (isDue) await flush();
  };
  return {
    image(image) {
      images.push(image);
      return flushWhenDue();
    },
    rejection(rejection) {
      rejections.push(rejection);
      return flushWhenDue();
    },
    flush,
  };
}
