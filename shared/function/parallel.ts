/**
 * Works on the items of an iterable, so many at a time; the next item is asked for only when a worker is free.
 *
 * @throws what the iterable or a worker throws first; `onFailure` hears of it at once, so that it can stop the
 *   workers still busy, and all of them are over when this rejects
 */
export async function forEachConcurrently<Item>(
  items: AsyncIterable<Item>,
  limit: number,
  work: (item: Item) => Promise<void>,
  onFailure: (error: unknown) => void = () => {},
): Promise<void> {
  const iterator = items[Symbol.asyncIterator]();
  const failures: unknown[] = [];
  const fail = (error: unknown) => {
    if (failures.push(error) === 1) onFailure(error);
  };
  // Iterators may not be asked twice at once.
  let turn: Promise<unknown> = Promise.resolve();
  const takeTurn = (): Promise<IteratorResult<Item>> => {
    const taken = turn.then(() => iterator.next());
    turn = taken.catch(() => {});
    return taken;
  };
  const worker = async () => {
    while (failures.length === 0) {
      const next = await takeTurn();
      if (next.done === true) return;
      await work(next.value);
    }
  };
  await Promise.all(Array.from({ length: limit }, () => worker().catch(fail)));
  if (failures.length === 0) return;
  await iterator.return?.().catch(() => {});
  throw failures[0];
}
