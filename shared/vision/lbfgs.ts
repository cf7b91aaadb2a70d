/** A function to minimise: its value and gradient at a point. */
export type Objective = (point: Float64Array) => { loss: number; gradient: Float64Array };

export interface MinimiseOptions {
  /** Largest number of iterations. */
  maxIterations?: number;
  /** Done when no component of the gradient is larger. */
  gradientTolerance?: number;
  /** Done when an iteration lowers the loss by less than this share of it. */
  lossTolerance?: number;
  /** Called before each iteration; serve the event loop or throw to stop here. */
  beforeStep?: (step: number, loss: number) => Promise<void> | void;
}

export interface Minimum {
  point: Float64Array;
  loss: number;
  /** Loss before the first and after each iteration. */
  losses: number[];
}

/** How point and gradient changed in one iteration; `inverseCurvature` = 1 / (points . gradients). */
interface Correction {
  points: Float64Array;
  gradients: Float64Array;
  inverseCurvature: number;
}

/** Corrections kept: beyond ten, more memory buys little (Liu and Nocedal, 1989, section 4). */
const MEMORY = 10;

/** Share of the promised decrease that a step must bring (Armijo, 1966). */
const SUFFICIENT_DECREASE = 1e-4;

const MAX_HALVINGS = 20;

/**
 * Minimises a smooth convex function by L-BFGS with a backtracking line search
 * (Nocedal and Wright, Numerical Optimization, 2006, algorithms 7.4 and 3.1). Deterministic.
 */
export async function minimise(
  objective: Objective,
  start: Float64Array,
  options: MinimiseOptions = {},
): Promise<Minimum> {
  const { maxIterations = 200, gradientTolerance = 1e-5, lossTolerance = 1e-6 } = options;
  const corrections: Correction[] = [];
  let point = start;
  let { loss, gradient } = objective(point);
  const losses = [loss];
  for (let step = 0; step < maxIterations && largest(gradient) > gradientTolerance; step += 1) {
    await options.beforeStep?.(step, loss);
    const direction = descentDirection(gradient, corrections);
    const next = lineSearch(objective, { point, loss, gradient }, direction);
    // No step lowers the loss any more: what is left is the rounding of the objective.
    if (next === undefined) break;
    remember(corrections, subtract(next.point, point), subtract(next.gradient, gradient));
    const decrease = loss - next.loss;
    ({ point, loss, gradient } = next);
    losses.push(loss);
    if (decrease <= lossTolerance * Math.abs(loss)) break;
  }
  return { point, loss, losses };
}

/** The two-loop recursion: minus the inverse Hessian's estimate times the gradient. */
function descentDirection(gradient: Float64Array, corrections: readonly Correction[]): Float64Array {
  const direction = gradient.map((value) => -value);
  const newestFirst = [...corrections].reverse();
  const shares = newestFirst.map(({ points, gradients, inverseCurvature }) => {
    const share = inverseCurvature * dot(points, direction);
    addScaled(direction, gradients, -share);
    return share;
  });
  const newest = newestFirst[0];
  // Without a correction, a step no longer than 1 is a safe first guess of the scale.
  const scale =
    newest === undefined
      ? 1 / Math.max(1, Math.sqrt(dot(gradient, gradient)))
      : 1 / (newest.inverseCurvature * dot(newest.gradients, newest.gradients));
  for (let i = 0; i < direction.length; i += 1) direction[i] = (direction[i] ?? 0) * scale;
  for (const [i, { points, gradients, inverseCurvature }] of [...newestFirst.entries()].reverse()) {
    addScaled(direction, points, (shares[i] ?? 0) - inverseCurvature * dot(gradients, direction));
  }
  return direction;
}

interface Place {
  point: Float64Array;
  loss: number;
  gradient: Float64Array;
}

/** Shortens the step until it lowers the loss enough; undefined when none does. */
function lineSearch(objective: Objective, from: Place, direction: Float64Array): Place | undefined {
  const slope = dot(from.gradient, direction);
  if (!(slope < 0)) return undefined;
  let length = 1;
  for (let halving = 0; halving < MAX_HALVINGS; halving += 1) {
    const point = from.point.slice();
    addScaled(point, direction, length);
    const { loss, gradient } = objective(point);
    if (loss <= from.loss + SUFFICIENT_DECREASE * length * slope) return { point, loss, gradient };
    length /= 2;
  }
  return undefined;
}

function remember(corrections: Correction[], points: Float64Array, gradients: Float64Array): void {
  const curvature = dot(points, gradients);
  // Rounding can hide a tiny positive curvature; such a pair would spoil the estimate.
  if (curvature <= 1e-12 * dot(gradients, gradients)) return;
  corrections.push({ points, gradients, inverseCurvature: 1 / curvature });
  if (corrections.length > MEMORY) corrections.shift();
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += (a[i] ?? 0) * (b[i] ?? 0);
  return sum;
}

function addScaled(target: Float64Array, source: Float64Array, factor: number): void {
  for (let i = 0; i < target.length; i += 1) target[i] = (target[i] ?? 0) + factor * (source[i] ?? 0);
}

function subtract(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value - (b[i] ?? 0));
}

function largest(values: Float64Array): number {
  let found = 0;
  for (const value of values) found = Math.max(found, Math.abs(value));
  return found;
}
