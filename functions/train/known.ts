import type { EventData } from '../../shared/events.ts';
import { readChampion, readModel } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';

/** The model that serves, if training on these features would give it again. */
export async function championThatKnows(
  objects: ObjectStore,
  { model: name, dataset, extractor, seed }: EventData<'dev.dandelion.features.stored.v1'>,
): Promise<{ name: string; version: string } | undefined> {
  const serving = await readChampion(objects, name);
  if (serving === undefined) return undefined;
  const { version } = serving.champion;
  const record = await readModel(objects, name, version);
  const isSame =
    record.dataset.version === dataset.version &&
    record.extractor.id === extractor.id &&
    record.training.seed === seed;
  return isSame ? { name, version } : undefined;
}
