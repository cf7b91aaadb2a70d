import { seededRandom, shuffled } from './random.ts';

/** Photos that must stay together, and the class most of them have. */
interface Group {
  members: number[];
  label: number;
}

function groupsOf(labels: Int32Array, groups: readonly string[] | undefined): Group[] {
  const byName = new Map<string, number[]>();
  for (let i = 0; i < labels.length; i += 1) {
    pushTo(byName, groups?.[i] ?? String(i), i);
  }
  return [...byName.values()].map((members) => {
    const counts = new Map<number, number>();
    for (const i of members) counts.set(labels[i] ?? 0, (counts.get(labels[i] ?? 0) ?? 0) + 1);
    const label = [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0];
    return { members, label };
  });
}

/**
 * Deals samples into folds for cross-validation: a group is never divided, each class is spread as evenly as its
 * groups allow, the order is drawn from the seed.
 *
 * @param labels class of each sample, 0 and up
 * @param groups name of each sample's group; without it each sample is a group of its own
 * @param wanted number of folds; fewer when a class has fewer groups, 1 when a class has a single group
 * @returns the fold of each sample and how many folds there are
 */
export function groupedFolds(
  labels: Int32Array,
  groups: readonly string[] | undefined,
  wanted: number,
  seed: number,
): { folds: Int32Array; count: number } {
  const random = seededRandom(seed);
  const all = groupsOf(labels, groups);
  const groupsOfClass = new Map<number, Group[]>();
  for (const group of all) pushTo(groupsOfClass, group.label, group);
  const count = Math.min(wanted, ...[...groupsOfClass.values()].map((members) => members.length));
  const folds = new Int32Array(labels.length);
  const sizes = new Array<number>(count).fill(0);
  for (const label of [...groupsOfClass.keys()].sort((a, b) => a - b)) {
    const ofClass = new Array<number>(count).fill(0);
    // Large groups first: what is small fills the gaps they leave.
    const order = shuffled(groupsOfClass.get(label) ?? [], random).sort(
      (a, b) => b.members.length - a.members.length,
    );
    for (const { members } of order) {
      const fold = emptiest(ofClass, sizes);
      for (const i of members) folds[i] = fold;
      ofClass[fold] = (ofClass[fold] ?? 0) + members.length;
      sizes[fold] = (sizes[fold] ?? 0) + members.length;
    }
  }
  return { folds, count };
}

function pushTo<Key, Item>(lists: Map<Key, Item[]>, key: Key, item: Item): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [item]);
  else list.push(item);
}

/** The fold with the fewest samples of the class; among equals the smallest one, then the first. */
function emptiest(ofClass: readonly number[], sizes: readonly number[]): number {
  let best = 0;
  for (let fold = 1; fold < ofClass.length; fold += 1) {
    const fewer = (ofClass[fold] ?? 0) - (ofClass[best] ?? 0);
    if (fewer < 0 || (fewer === 0 && (sizes[fold] ?? 0) < (sizes[best] ?? 0))) best = fold;
  }
  return best;
}
