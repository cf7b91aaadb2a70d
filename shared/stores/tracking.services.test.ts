import { describeMlflow } from './testing-mlflow.ts';
import { describeService } from './testing-services.ts';
import { describeTrackingContract } from './testing-tracking.ts';
import { openTracker } from './tracking.ts';

describeService('MLFLOW_TRACKING_URI', 'MLflow as tracking store', (url) => {
  const { MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN } = process.env;
  const account = { MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN };
  const settings = { ...account, MLFLOW_TRACKING_URI: url };
  describeTrackingContract('does what a tracking store owes', () => openTracker(settings));
  describeMlflow(settings);
});
