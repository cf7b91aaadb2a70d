import type { Event } from '../../shared/events.ts';
import { listRuns } from '../../shared/stores/steps.ts';
import type { TestCluster } from './cluster.ts';
import type { Row } from './table.ts';
import type { Ingress } from './traffic.ts';

const APPROVED = 'dev.dandelion.model.approved.v1';

/** What the stages share. */
export interface Suite {
  cluster: TestCluster;
  ingress: Ingress;
  say(sentence: string): void;
  /** `s3://` address of the photos that models are trained on. */
  photos: string;
  /** A photo to ask the model with. */
  photo: Uint8Array;
  cycles: number;
  chaosChains: number;
  /** How long a training is to take as a Job; 0: none is to. */
  longMinutes: number;
}

/** One part of the suite. Throws where it cannot go on. */
export type Stage = (suite: Suite) => Promise<Row[]>;

/** The last approval that evaluate gave: deploy takes what is like it. */
export async function lastApproval({ cluster }: Suite): Promise<Event> {
  const runs = await listRuns(cluster.db, { function: 'evaluate' });
  const approved = runs.map(({ result }) => result).findLast((result) => result?.type === APPROVED);
  if (approved == null) throw new Error('no model was approved yet: run the stage "chain" first');
  return approved;
}
