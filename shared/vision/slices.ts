import { wilsonInterval } from './metrics.ts';

/** What a photo is sliced by; what is not known puts it into no slice. */
export interface SliceFacts {
  /** Mean luma, 0 to 1. */
  brightness?: number | undefined;
  /** Shorter side of the file in pixels. */
  shortSide?: number | undefined;
  /** Where its label came from. */
  source?: string | undefined;
}

/** How a model did on a part of the photos. */
export interface Slice {
  /** What it is a part by, and which: `brightness`, `dark (below 0.3)`. */
  by: string;
  name: string;
  photos: number;
  accuracy: number;
  /** Wilson's 95 % interval. */
  interval: [number, number];
}

/** Limits between which ordinary photos lie. */
const DARK = 0.3;
const BRIGHT = 0.6;
/** Below the side of the square that the backbone looks at, pixels are invented. */
const SMALL = 224;

const slicings: { by: string; nameOf(facts: SliceFacts): string | undefined }[] = [
  {
    by: 'brightness',
    nameOf: ({ brightness }) => {
      if (brightness === undefined) return undefined;
      if (brightness < DARK) return `dark (below ${DARK})`;
      return brightness > BRIGHT ? `bright (above ${BRIGHT})` : 'in between';
    },
  },
  {
    by: 'shorter side',
    nameOf: ({ shortSide }) => {
      if (shortSide === undefined) return undefined;
      return shortSide < SMALL ? `below ${SMALL} pixels` : `${SMALL} pixels or more`;
    },
  },
  { by: 'source of the label', nameOf: ({ source }) => source },
];

/**
 * Accuracy by parts of the photos: where a model is weak, the mean hides it.
 *
 * @param correct whether each photo was answered right
 */
export function sliceAccuracy(facts: readonly SliceFacts[], correct: readonly boolean[]): Slice[] {
  return slicings.flatMap(({ by, nameOf }) => {
    const parts = Map.groupBy(facts.keys(), (photo) => nameOf(facts[photo] ?? {}));
    return [...parts]
      .flatMap(([name, photos]) => (name === undefined ? [] : [{ name, photos }]))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ name, photos }) => {
        const right = photos.filter((photo) => correct[photo] === true).length;
        const interval = wilsonInterval(right, photos.length);
        return { by, name, photos: photos.length, accuracy: right / photos.length, interval };
      });
  });
}
