import type { AirflowSettings } from '../config.ts';
import { DandelionError } from '../errors.ts';
import { createEvent, type Event, type EventData, parseEventData } from '../events.ts';
import { createAssetEvent } from '../stores/airflow.ts';
import { toJsonEvent } from './cloudevents.ts';
import type { Sink } from './sink.ts';

const RETRAIN_REQUESTED = 'dev.dandelion.retrain.requested.v1';

/** The asset by which a DAG of `airflow/dags` hears of it. */
export const RETRAIN_ASSET = 'dandelion://retrain/requested';

/** A request to train a model anew. */
export interface RetrainRequest {
  /** The same request has the same id, however often it is made: it is worked once. */
  id: string;
  /** Who asks, as {@link sourceOf} names functions. */
  source: string;
  data: EventData<typeof RETRAIN_REQUESTED>;
  traceparent?: string;
}

/** Where requests can go. */
export interface RetrainRoutes {
  settings: AirflowSettings;
  /** The broker, as `createSink` makes it. */
  sink: Sink | undefined;
}

/**
 * Asks for a training of whoever chains the steps here: Airflow where AIRFLOW_URL names one, else the broker, never
 * both. Returns when the request was taken over; it may be repeated with the same id until then.
 *
 * @throws DandelionError `bad-data` when the request is none; `store-unavailable` or `upstream-unavailable` when it is to
 *   be repeated; `bad-config` when neither Airflow nor a broker is there, or Airflow's DAG would not run
 */
export async function requestRetraining(
  request: RetrainRequest,
  { settings, sink }: RetrainRoutes,
): Promise<'airflow' | 'broker'> {
  const event = createEvent({ ...request, type: RETRAIN_REQUESTED, subject: request.data.model });
  parseEventData(event, RETRAIN_REQUESTED);
  const { AIRFLOW_URL } = settings;
  if (AIRFLOW_URL !== undefined) {
    await createAssetEvent(
      { ...settings, AIRFLOW_URL },
      { uri: RETRAIN_ASSET, extra: { event: toJsonEvent(event) } },
    );
    return 'airflow';
  }
  await sendToBroker(event, sink);
  return 'broker';
}

async function sendToBroker(event: Event, sink: Sink | undefined): Promise<void> {
  if (sink === undefined) {
    throw new DandelionError(
      'bad-config',
      'Nobody would hear of the request to retrain: set K_SINK to the broker, or AIRFLOW_URL to Airflow.',
    );
  }
  const answer = await sink(event);
  if (answer.kind === 'taken') return;
  throw new DandelionError(
    'upstream-unavailable',
    `The broker did not take the request to retrain: ${answer.reason}.`,
    answer.kind === 'failed' ? { retryAfterMs: answer.retryAfterMs } : {},
  );
}
