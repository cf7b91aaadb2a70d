import type { Database } from '../../shared/stores/database.ts';
import { type Ingestion, listReviewedPhotos, recordImages } from '../../shared/stores/images.ts';
import type { Collected } from './collect.ts';

/** What was collected, and the labels that a person reviewed: those win over what a source says. */
export interface WithReviewed extends Collected {
  reviewedLabels: ReadonlyMap<string, string>;
}

/**
 * Adds the photos whose label a person reviewed (accepted feedback) to an ingestion of their model, whatever its
 * source. Those of a class that the source does not have stay out: a class of a few photos would keep the others
 * from being trained.
 */
export async function joinReviewedPhotos(
  db: Database,
  ingestion: Ingestion,
  collected: Collected,
): Promise<WithReviewed> {
  const reviewed = await listReviewedPhotos(db, ingestion.model);
  const brought = new Set(collected.claims.map(({ sha256 }) => sha256));
  const joining = reviewed.filter(({ sha256, label }) => !brought.has(sha256) && collected.labels.has(label));
  await recordImages(db, ingestion, joining);
  return {
    ...collected,
    claims: [...collected.claims, ...joining.map(({ source, label, sha256 }) => ({ source, label, sha256 }))],
    reused: new Set([...collected.reused, ...joining.map(({ sha256 }) => sha256)]),
    reviewedLabels: new Map(reviewed.map(({ sha256, label }) => [sha256, label])),
  };
}
