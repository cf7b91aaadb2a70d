import { readChampion } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { prepareServedModel } from '../../shared/stores/served-model.ts';
import type { Rollout } from './rollout.ts';

/** The rollout without Kubernetes: predict follows champion.json, and swaps models without a failed request. */
export function createPointerRollout(objects: ObjectStore): Rollout {
  return {
    canary: false,
    async serving(model) {
      const version = (await readChampion(objects, model))?.champion.version;
      return version === undefined ? undefined : { version, revision: version };
    },
    find: async () => undefined,
    revisionOf: async (_model, version) => version,
    async prepare({ model, version }) {
      const served = await prepareServedModel(objects, model, version);
      await served.close();
    },
    route: async () => {},
    ask: () => undefined,
    tidy: async () => [],
  };
}
