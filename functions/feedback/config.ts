import { z } from 'zod';
import { count, modelName, storeSettings } from '../../shared/config.ts';
import { classLabel, modelVersion, UNKNOWN } from '../../shared/events.ts';

export const feedbackSettings = storeSettings.extend({
  MODEL_NAME: modelName.default('dandelion'),
  /** Feedback that one client may give in a minute. */
  FEEDBACK_PER_MINUTE: count(1).default(30),
  /** Feedback that may wait for a review; more is refused. */
  FEEDBACK_MOST_WAITING: count(1).default(10_000),
  /** Feedback of one client that may wait, so that none fills the review alone; where clients are told apart. */
  FEEDBACK_MOST_OF_CLIENT: count(1).default(200),
  FEEDBACK_MAX_PHOTO_BYTES: count(1).default(20_000_000),
  FEEDBACK_MAX_PHOTO_PIXELS: count(1).default(50_000_000),
  /**
   * Secret key of the hash that stands for a client, as in the prediction log. Without it clients are not told apart,
   * and an answer has one feedback, whoever gives it.
   */
  PREDICTION_LOG_SALT: z.string().min(16, 'use at least 16 characters').optional(),
});
export type FeedbackSettings = z.infer<typeof feedbackSettings>;

/** Largest body: a 20 MB photo and what is said about it. */
export const BODY_LIMIT_BYTES = 21_000_000;

/** A class, as a person says it; none of them is null, whatever word predict has for it. */
const saidLabel = classLabel
  .refine((label) => label !== UNKNOWN, {
    error: `say null for none of the classes; a class called "${UNKNOWN}" must be renamed`,
  })
  .nullable();

const answer = {
  /** Id of the answer, as predict gave it. */
  prediction: z.uuid(),
  model: z.object({ name: modelName, version: modelVersion }),
  /** What predict said. */
  predicted: classLabel,
  /** Allows to keep the photo, which then comes along, and to train with it. */
  consent: z.boolean().default(false),
};

/** What a page or program says about an answer. */
export const feedbackRequest = z.discriminatedUnion('correct', [
  z.strictObject({ ...answer, correct: z.literal(true) }),
  z.strictObject({
    ...answer,
    correct: z.literal(false),
    /** What it is instead; null: none of the model's classes. */
    label: saidLabel,
  }),
]);
export type FeedbackRequest = z.infer<typeof feedbackRequest>;

/** What a reviewer may say besides the verdict. */
export const reviewRequest = z.strictObject({
  /** Corrects it. */
  label: saidLabel.optional(),
  /** `givenAt` of what was looked at: its sender may have changed it since. */
  givenAt: z.iso.datetime().optional(),
});

export const reviewQuery = z.object({
  status: z.enum(['waiting', 'accepted', 'rejected']).default('waiting'),
  client: z.string().optional(),
  limit: count(1).max(1000).default(100),
});
