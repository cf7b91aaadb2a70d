import type { ErrorCode } from '../../shared/errors.ts';
import type { RejectedEntry } from '../../shared/stores/images.ts';

/** Every entry of an ingestion that did not become a photo. */
export interface RejectionList {
  /** Notes an entry; one that was refused under the same name before gets a name of its own. */
  add(source: string, code: ErrorCode, reason: string): Promise<void>;
  all(): readonly RejectedEntry[];
}

/** A list that hands every rejection on to `record`. */
export function openRejections(record: (rejection: RejectedEntry) => Promise<void>): RejectionList {
  const rejections: RejectedEntry[] = [];
  const uses = new Map<string, number>();
  return {
    add(source, code, reason) {
      const use = (uses.get(source) ?? 0) + 1;
      uses.set(source, use);
      const rejection = { source: use === 1 ? source : `${source} (entry ${use})`, code, reason };
      rejections.push(rejection);
      return record(rejection);
    },
    all: () => rejections,
  };
}
