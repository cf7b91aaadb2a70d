import type { GateCheck, MetricsSummary } from '../../shared/events.ts';
import type { GateLimits } from './config.ts';

/** How one model did on the test split. */
export interface Score {
  metrics: MetricsSummary;
  /** Whether each photo was labelled right, in the order of the dataset. */
  correct: boolean[];
  /** How much the confidence of the answers exceeds their accuracy, mean over the test photos; 0 to 1. */
  overconfidence: number;
  /** Median time of one photo, in milliseconds. */
  latencyMs: number;
  /**
   * Time of one photo where nothing else wanted the processor: the tenth percentile. What others do on a machine only ever
   * adds time, and not the same to two models that are measured one after the other.
   */
  undisturbedMs: number;
  sizeBytes: number;
}

/** The candidate's own score, and how far its serving graph strays from the head that was measured. */
export interface CandidateScore extends Score {
  servingDeviation: number;
}

/** Largest difference between a probability of the head and of the graph that serves it (float32 rounding). */
const LARGEST_SERVING_DEVIATION = 0.01;

/**
 * The promotion gate: a floor for everyone, and for whoever follows a champion non-inferiority on the very same
 * photos. Idea of a blessing that must beat both an absolute and a relative threshold: TFX Evaluator
 * (https://www.tensorflow.org/tfx/guide/evaluator).
 */
export function judge(
  candidate: CandidateScore,
  champion: Score | undefined,
  limits: GateLimits,
): GateCheck[] {
  const own = [
    floorCheck(candidate, limits),
    atMost(
      'calibration',
      candidate.overconfidence,
      limits.GATE_MAX_OVERCONFIDENCE,
      'confidence beyond the accuracy of the answers',
    ),
    atMost(
      'serving-agreement',
      candidate.servingDeviation,
      LARGEST_SERVING_DEVIATION,
      'largest difference between the measured head and the serving graph',
    ),
  ];
  if (champion === undefined) return own;
  const slower = candidate.undisturbedMs / champion.undisturbedMs;
  const larger = candidate.sizeBytes / champion.sizeBytes;
  return [
    ...own,
    nonInferiorityCheck(candidate, champion, limits),
    atMost('latency', slower, limits.GATE_MAX_LATENCY_RATIO, 'time of one photo relative to the champion'),
    atMost('size', larger, limits.GATE_MAX_SIZE_RATIO, 'bytes relative to the champion'),
  ];
}

function floorCheck({ metrics }: Score, limits: GateLimits): GateCheck {
  const { accuracy } = metrics;
  return {
    check: 'floor',
    passed: accuracy >= limits.GATE_MIN_ACCURACY,
    value: accuracy,
    limit: limits.GATE_MIN_ACCURACY,
    detail: `accuracy on ${metrics.images} test photos`,
  };
}

function nonInferiorityCheck(candidate: Score, champion: Score, limits: GateLimits): GateCheck {
  const pairs = candidate.correct.map((right, index) => Number(right) - Number(champion.correct[index]));
  const won = pairs.filter((difference) => difference > 0).length;
  const lost = pairs.filter((difference) => difference < 0).length;
  const difference = (won - lost) / Math.max(1, pairs.length);
  return {
    check: 'non-inferiority',
    passed: difference >= -limits.GATE_MARGIN,
    value: difference,
    limit: -limits.GATE_MARGIN,
    detail: `accuracy against the champion on the same ${pairs.length} photos: ${won} won, ${lost} lost`,
  };
}

function atMost(check: string, value: number, limit: number, detail: string): GateCheck {
  return { check, passed: value <= limit, value, limit, detail };
}
