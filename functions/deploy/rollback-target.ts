import { DandelionError } from '../../shared/errors.ts';
import type { Deployment } from '../../shared/stores/deployments.ts';
import { readChampion, readModel } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';

/** The version that a rollback goes to. */
export async function rollbackTarget(
  objects: ObjectStore,
  model: string,
  wanted: string | undefined,
  underWay: Deployment | undefined,
): Promise<{ version: string; from: string }> {
  const champion = (await readChampion(objects, model))?.champion;
  if (champion === undefined) {
    throw new DandelionError('nothing-to-roll-back', `No ${model} model has been deployed yet.`);
  }
  // While a newer version is being tried, going back means to stop that.
  const trying = underWay?.kind === 'deploy' && underWay.version !== champion.version;
  const version = wanted ?? (trying ? champion.version : champion.previous);
  if (version === null) {
    throw new DandelionError(
      'nothing-to-roll-back',
      `${champion.version} is the first ${model} that serves.`,
    );
  }
  await readModel(objects, model, version).catch((error: unknown) => {
    if (!(error instanceof DandelionError) || error.code !== 'model-unknown') throw error;
    throw new DandelionError('nothing-to-roll-back', `${error.message} Name a version that is there.`);
  });
  return { version, from: trying ? underWay.version : champion.version };
}
