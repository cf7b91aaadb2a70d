import type { InitContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';
import { countFeedback, measureLiveAccuracy } from '../../shared/stores/feedback.ts';

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
