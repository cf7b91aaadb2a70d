import { readConfig } from '../../shared/config.ts';
import { parseEventData } from '../../shared/events.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { promoteChampion } from '../../shared/stores/models.ts';
import { type ObjectStore, openObjects } from '../../shared/stores/objects.ts';
import { openServedModel } from '../../shared/stores/served-model.ts';
import { openTracker, type Tracker } from '../../shared/stores/tracking.ts';
import { deploySettings } from './config.ts';

export const durable = true;

let objects: ObjectStore;
let tracker: Tracker;

export function init({ env }: InitContext): void {
  const settings = readConfig(deploySettings, env);
  objects = openObjects(settings);
  tracker = openTracker(settings);
}

/** An approved model proves that it can be served, then champion.json points at it: from then on it serves. */
export async function handler(event: FunctionEvent, context: FunctionContext) {
  const { model, metrics } = parseEventData(event.cloudEvent, 'dev.dandelion.model.approved.v1');
  const { name, version } = model;

  context.progress(0, 2, 'loading the model as predict will');
  const served = await openServedModel(objects, name, version);
  await served.close();

  context.progress(1, 2, 'moving champion.json');
  const champion = await promoteChampion(objects, name, version);
  await tracker.setAlias(name, 'champion', { version, runId: served.record.training.runId });

  context.progress(2, 2);
  context.log.info({ champion }, 'champion moved');
  return context.result(
    'dev.dandelion.model.deployed.v1',
    { model, previous: champion.previous, metrics },
    version,
  );
}
