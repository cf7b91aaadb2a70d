import { describe } from 'vitest';

/** Real servers that tests use when their address is given; `npm run test:services` runs just those tests. */
export type ServiceVariable =
  | 'S3_ENDPOINT'
  | 'MLFLOW_TRACKING_URI'
  | 'ELASTICSEARCH_URL'
  | 'DATABASE_URL'
  | 'KUBECONFIG';

/** A suite that needs a real server; where its address is not set, it is skipped and says so on the console. */
export function describeService(
  variable: ServiceVariable,
  title: string,
  suite: (url: string) => void,
): void {
  const url = process.env[variable];
  if (url === undefined || url === '') {
    console.warn(`SKIPPED: ${title}: ${variable} is not set, so there is no real server to test with.`);
    describe.skip(title, () => suite(''));
    return;
  }
  describe(title, () => suite(url));
}
