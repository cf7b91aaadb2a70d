/**
 * The photos in the order of a score, sorted once. Only scores that a positive has divide it: whatever lies between two of
 * them counts together, and what lies below the last of them need not be looked at.
 */
export interface Ranking {
  /** Photos by falling score; of those of one score the negatives come first. */
  order: Int32Array;
  /** Of each score that a positive has, three ends in `order`: of the negatives above it, of its negatives, of its positives. */
  ends: Int32Array;
}

/** Ranks photos by the score of class `c`; those of the class are the positives. */
export function rank(probabilities: Float32Array, labels: Int32Array, classes: number, c: number): Ranking {
  const scores = Float32Array.from(labels, (_, photo) => {
    const own = probabilities[photo * classes + c] ?? 0;
    return Number.isNaN(own) ? Number.NEGATIVE_INFINITY : own;
  });
  const score = (photo: number) => scores[photo] ?? 0;
  const isPositive = (photo: number) => labels[photo] === c;
  const order = Int32Array.from(
    [...labels.keys()].sort((a, b) => score(b) - score(a) || Number(isPositive(a)) - Number(isPositive(b))),
  );
  const ends: number[] = [];
  const placeAfter = (from: number, holds: (photo: number) => boolean): number => {
    let place = from;
    while (place < order.length && holds(order[place] ?? -1)) place += 1;
    return place;
  };
  for (let from = 0; from < order.length; ) {
    const own = score(order[from] ?? -1);
    const negatives = placeAfter(from, (photo) => score(photo) === own && !isPositive(photo));
    const positives = placeAfter(negatives, (photo) => score(photo) === own);
    if (positives > negatives) ends.push(from, negatives, positives);
    from = Math.max(positives, from + 1);
  }
  return { order, ends: Int32Array.from(ends) };
}

/**
 * The ROC curve, from [0, 0] to [1, 1]: its corners alone, equal scores as one slanted line.
 *
 * @returns empty when there are no positives or no negatives
 */
export function rocCurve({ order, ends }: Ranking): [number, number][] {
  const points: [number, number][] = [[0, 0]];
  let [x, y] = [0, 0];
  const goTo = (nextX: number, nextY: number) => {
    if (nextX === x && nextY === y) return;
    [x, y] = [nextX, nextY];
    const [[beforeX, beforeY] = [-1, -1], [lastX, lastY] = [-1, -1]] = points.slice(-2);
    const straight = (beforeX === lastX && lastX === x) || (beforeY === lastY && lastY === y);
    if (straight && points.length > 1) points.pop();
    points.push([x, y]);
  };
  for (let at = 0; at < ends.length; at += 3) {
    const [above = 0, negatives = 0, positives = 0] = ends.subarray(at, at + 3);
    goTo(above - y, y);
    goTo(x + negatives - above, y + positives - negatives);
  }
  goTo(order.length - y, y);
  return x === 0 || y === 0 ? [] : points.map((point) => [point[0] / x, point[1] / y]);
}

/** How often each photo counts. */
export interface Weights {
  of: Uint16Array;
  sum: number;
}

/**
 * The area under the ROC curve: the share of pairs of a positive and a negative that are in the right order,
 * ties counted half (Hanley and McNeil, 1982).
 *
 * @returns undefined when there are no positives or no negatives
 */
export function areaUnderCurve({ order, ends }: Ranking, { of: weights, sum }: Weights): number | undefined {
  // Whole numbers and halves, so exact in whatever order they are added.
  let [positives, negatives, ordered, place] = [0, 0, 0, 0];
  for (let at = 0; at < ends.length; at += 3) {
    const above = ends[at] ?? 0;
    const ownNegatives = ends[at + 1] ?? 0;
    const ownPositives = ends[at + 2] ?? 0;
    let [between, tiedNegatives, tiedPositives] = [0, 0, 0];
    for (; place < above; place += 1) between += weights[order[place] ?? 0] ?? 0;
    for (; place < ownNegatives; place += 1) tiedNegatives += weights[order[place] ?? 0] ?? 0;
    for (; place < ownPositives; place += 1) tiedPositives += weights[order[place] ?? 0] ?? 0;
    ordered += between * positives + tiedNegatives * (positives + tiedPositives / 2);
    negatives += between + tiedNegatives;
    positives += tiedPositives;
  }
  const below = sum - positives - negatives;
  ordered += below * positives;
  negatives += below;
  return positives === 0 || negatives === 0 ? undefined : ordered / (positives * negatives);
}

/** Every photo counts once. */
export function evenWeights(photos: number): Weights {
  return { of: new Uint16Array(photos).fill(1), sum: photos };
}
