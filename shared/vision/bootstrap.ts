import { wilsonInterval } from './metrics.ts';
import { seededRandom } from './random.ts';

/**
 * 95 % intervals: percentiles of bootstrap samples of the photos, each class at its own number (Efron and Tibshirani, 1993).
 * Those of shares are Wilson's: where every answer is right, no sample has a wrong one, and a bootstrap would say
 * that there are none.
 */
export interface BootstrapIntervals {
  accuracy: [number, number];
  logLoss: [number, number];
  /** Difference of mean confidence and accuracy; above 0 is surer than right. */
  overconfidence: [number, number];
  perClass: Record<string, { precision: [number, number]; recall: [number, number] }>;
}

const SAMPLES = 1000;

/** Below this a probability counts as this, so that one sure mistake does not make the log-loss infinite. */
const SMALLEST_PROBABILITY = 1e-12;

/**
 * @param probabilities row-major [photos, classes]
 * @param labels index into `classes`, [photos]
 */
export function bootstrapIntervals(
  probabilities: Float32Array,
  labels: Int32Array,
  classes: readonly string[],
  { seed }: { seed: number },
): BootstrapIntervals {
  const width = classes.length;
  const photos = [...labels.keys()];
  const answers = photos.map((photo) => {
    const own = probabilities.subarray(photo * width, (photo + 1) * width);
    const confidence = Math.max(...own);
    const truth = labels[photo] ?? 0;
    const loss = -Math.log(Math.max(SMALLEST_PROBABILITY, own[truth] ?? 0));
    return { truth, answer: own.indexOf(confidence), confidence, loss };
  });
  const byClass = [...Map.groupBy(answers, ({ truth }) => truth).values()];
  const random = seededRandom(seed);
  const drawn = Array.from({ length: SAMPLES }, () =>
    measure(
      byClass.flatMap((own) => own.map(() => own[Math.floor(random() * own.length)] ?? own[0])),
      width,
    ),
  );
  const interval = (pick: (sample: Measured) => number): [number, number] => {
    const values = Float64Array.from(drawn, pick).sort();
    const percentile = (share: number) => values[Math.round(share * (SAMPLES - 1))] ?? 0;
    return [percentile(0.025), percentile(0.975)];
  };
  const { hits, answered, support } = measure(answers, width);
  const right = hits.reduce((sum, count) => sum + count, 0);
  return {
    accuracy: wilsonInterval(right, answers.length),
    logLoss: interval((sample) => sample.logLoss),
    overconfidence: interval((sample) => sample.overconfidence),
    perClass: Object.fromEntries(
      classes.map((name, c) => [
        name,
        {
          precision: wilsonInterval(hits[c] ?? 0, answered[c] ?? 0),
          recall: wilsonInterval(hits[c] ?? 0, support[c] ?? 0),
        },
      ]),
    ),
  };
}

interface Answer {
  truth: number;
  answer: number;
  confidence: number;
  loss: number;
}

type Measured = ReturnType<typeof measure>;

function measure(sample: readonly (Answer | undefined)[], classes: number) {
  const [hits, answered, support] = [0, 0, 0].map(() => new Float64Array(classes)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  let [right, confidence, loss] = [0, 0, 0];
  for (const photo of sample) {
    if (photo === undefined) continue;
    support[photo.truth] = (support[photo.truth] ?? 0) + 1;
    answered[photo.answer] = (answered[photo.answer] ?? 0) + 1;
    confidence += photo.confidence;
    loss += photo.loss;
    if (photo.answer !== photo.truth) continue;
    right += 1;
    hits[photo.truth] = (hits[photo.truth] ?? 0) + 1;
  }
  const photos = sample.length;
  const accuracy = right / photos;
  return {
    ...{ accuracy, logLoss: loss / photos, overconfidence: confidence / photos - accuracy },
    ...{ hits, answered, support },
  };
}
