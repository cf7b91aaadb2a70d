import type { Logger } from 'pino';
import type { InitContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';
import {
  countFeedback,
  type Feedback,
  isCorrect,
  measureLiveAccuracy,
} from '../../shared/stores/feedback.ts';

/** What people say of the model, for `/metrics`. */
export function addFigures(gauge: InitContext['gauge'], db: Database, model: string): void {
  gauge({
    name: 'dandelion_feedback',
    help: 'Feedback by the state of its review',
    labelNames: ['model', 'status'],
    read: async () =>
      Object.entries(await countFeedback(db, model)).map(([status, value]) => ({
        labels: { model, status },
        value,
      })),
  });
  gauge({
    name: 'dandelion_live_accuracy',
    help: "Share of right answers by reviewed feedback, with the ends of Wilson's 95 % interval",
    labelNames: ['model', 'version', 'bound'],
    read: async () =>
      (await measureLiveAccuracy(db, model)).flatMap(({ version, accuracy, interval: [low, high] }) =>
        Object.entries({ share: accuracy, low, high }).map(([bound, value]) => ({
          labels: { model, version, bound },
          value,
        })),
      ),
  });
}

/** One line for what was given or reviewed, with the figures that dashboards draw live accuracy from. */
export function logFeedback(
  log: Logger,
  action: 'given' | 'accepted' | 'rejected',
  feedback: Pick<Feedback, 'model' | 'version' | 'predicted' | 'label'> & Partial<Pick<Feedback, 'logged'>>,
): void {
  const { model, version, predicted, label, logged } = feedback;
  const correct = isCorrect(feedback);
  log.info(
    {
      event: { action: `feedback-${action}` },
      ml: {
        model: { name: model, version },
        // Numbers, so that an average is an accuracy.
        feedback: { predicted, label, correct: correct ? 1 : 0, score: logged?.score },
      },
    },
    `feedback ${action}: ${predicted} was ${correct ? 'right' : `wrong, it is ${label ?? 'none of the classes'}`}`,
  );
}
