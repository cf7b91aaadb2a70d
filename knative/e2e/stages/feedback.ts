import { z } from 'zod';
import { readPredictTraffic } from '../../../shared/cli/predict-service.ts';
import { findFeedback } from '../../../shared/stores/feedback.ts';
import { readServiceHost } from '../cluster.ts';
import type { Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';
import { untilZero } from './cold-start.ts';

const answer = z.object({
  id: z.uuid(),
  label: z.string(),
  model: z.object({ name: z.string(), version: z.string() }),
});
const JSON_TYPE = 'application/json';

/** Somebody says of an answer that it was right: from zero, through the public ingress, into the ledger of reviews. */
export async function feedback(suite: Suite): Promise<Row[]> {
  const { cluster, ingress, photo, say } = suite;
  const url = (await readPredictTraffic(cluster.api, cluster.namespace))?.url;
  if (url === undefined) throw new Error('there is no predict Service');
  const asked = await ingress.post(new URL(url).host, photo);
  const { id: prediction, label: predicted, model } = answer.parse(JSON.parse(asked.text));
  const host = await readServiceHost(cluster, 'feedback');
  await untilZero(suite, 'feedback');
  const said = { prediction, model, predicted, correct: true };
  const { status, text, latencyMs } = await ingress.post(host, Buffer.from(JSON.stringify(said)), {
    contentType: JSON_TYPE,
  });
  say(`  ${status}: ${text.slice(0, 160)}`);
  const { id } = z.object({ id: z.string() }).parse(JSON.parse(text));
  const kept = await findFeedback(cluster.db, id);
  const wrong = { ...said, predicted: 'a weed of another kind' };
  const refused = await ingress.post(host, Buffer.from(JSON.stringify(wrong)), { contentType: JSON_TYPE });
  const stranger = await ingress.post(host, Buffer.from('{}'), {
    contentType: JSON_TYPE,
    path: `/reviews/${id}/accept`,
  });
  return [
    row(
      'feedback from zero',
      `${status} after ${(latencyMs / 1000).toFixed(1)} s, ${kept?.status ?? 'lost'}`,
      '202, waits for a review',
      status === 202 && kept?.status === 'waiting' && kept.label === predicted,
    ),
    row('feedback with an unknown label', refused.status, '422', refused.status === 422),
    row('a review by a stranger', stranger.status, '401 or 403', [401, 403].includes(stranger.status)),
  ];
}
