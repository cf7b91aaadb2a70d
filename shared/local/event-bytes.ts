import type { Event } from '../events.ts';

/** By an event's data, which nobody changes while it is on its way. */
const bytesOfData = new WeakMap<object, Buffer>();

/** Keeps the JSON that an event's data was read from, so that who hands it on need not write it anew. */
export function keepBytes({ data }: Event, json: Buffer): void {
  if (isJsonValue(data)) bytesOfData.set(data, json);
}

/** The JSON of an event's data as it came; undefined where it did not come as JSON of its own. */
export function keptBytes({ data }: Event): Buffer | undefined {
  return isJsonValue(data) ? bytesOfData.get(data) : undefined;
}

function isJsonValue(data: unknown): data is object {
  return typeof data === 'object' && data !== null && !(data instanceof Uint8Array);
}
