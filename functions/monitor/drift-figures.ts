import type { InitContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';
import { type DriftCheck, listDriftChecks } from '../../shared/stores/drift-checks.ts';

/** What the last check for drift found, for `/metrics`. */
export function addDriftFigures(gauge: InitContext['gauge'], db: Database, model: string): void {
  const ofLast = async (
    samples: (check: DriftCheck) => { labels: Record<string, string>; value: number }[],
  ) => {
    const [last] = await listDriftChecks(db, model, 1);
    if (last === undefined) return [];
    const { version } = last;
    return samples(last).map(({ labels, value }) => ({ labels: { model, version, ...labels }, value }));
  };
  gauge({
    name: 'dandelion_drift_alarm',
    help: 'Whether the last check told of drift',
    labelNames: ['model', 'version'],
    read: () => ofLast(({ report }) => [{ labels: {}, value: report.drifted ? 1 : 0 }]),
  });
  gauge({
    name: 'dandelion_drift_effect',
    help: 'Size of the difference to the training photos at the last check, by what was tested',
    labelNames: ['model', 'version', 'kind', 'feature'],
    read: () =>
      ofLast(({ report }) =>
        report.findings.map(({ kind, feature, effect }) => ({ labels: { kind, feature }, value: effect })),
      ),
  });
  gauge({
    name: 'dandelion_drift_p_value',
    help: 'How likely chance alone makes such a difference, by what was tested',
    labelNames: ['model', 'version', 'kind', 'feature'],
    read: () =>
      ofLast(({ report }) =>
        report.findings.map(({ kind, feature, pValue }) => ({ labels: { kind, feature }, value: pValue })),
      ),
  });
}
