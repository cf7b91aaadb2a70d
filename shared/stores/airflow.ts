import { z } from 'zod';
import type { AirflowSettings } from '../config.ts';
import { DandelionError } from '../errors.ts';
import { parseJson } from '../json.ts';

/** An event of an asset: it starts the DAGs that are scheduled by it. */
export interface AssetEvent {
  /** As the DAG declares it. */
  uri: string;
  /** JSON that the DAG's run finds beside the event. */
  extra: Record<string, unknown>;
}

const ANSWER_WITHIN_MS = 10_000;

const token = z.object({ access_token: z.string().min(1) });
const assets = z.object({
  assets: z.array(
    z.object({
      id: z.number().int(),
      uri: z.string(),
      scheduled_dags: z.array(z.object({ dag_id: z.string() })).default([]),
    }),
  ),
});
const dag = z.object({ is_paused: z.boolean() });
const created = z.object({ id: z.number().int() });

/**
 * Tells Airflow that an asset changed. Airflow counts each call: who repeats one tells a second change.
 *
 * Source: Airflow's stable REST API v2, `POST /auth/token`, `GET /assets`, `GET /dags/{dag_id}`, `POST /assets/events`.
 *
 * @throws DandelionError `store-unavailable` when Airflow does not answer; `bad-config` when it wants other credentials,
 *   or when no DAG would run: Airflow itself drops events of assets whose DAGs are paused, and says nothing
 */
export async function createAssetEvent(
  settings: AirflowSettings & { AIRFLOW_URL: string },
  { uri, extra }: AssetEvent,
): Promise<void> {
  const server = await logIn(settings);
  const found = await ask(server, `/api/v2/assets?${new URLSearchParams({ uri_pattern: uri })}`, assets);
  const asset = found.assets.find((each) => each.uri === uri);
  if (asset === undefined || asset.scheduled_dags.length === 0) {
    throw new DandelionError(
      'bad-config',
      `${server.place} has no DAG that waits for ${uri}: see that its DAG processor reads our DAGs, and without an error.`,
    );
  }
  for (const { dag_id: id } of asset.scheduled_dags) {
    const { is_paused: isPaused } = await ask(server, `/api/v2/dags/${encodeURIComponent(id)}`, dag);
    if (!isPaused) continue;
    throw new DandelionError(
      'bad-config',
      `The DAG ${id} of ${server.place} is paused and would miss this: unpause it.`,
    );
  }
  await ask(server, '/api/v2/assets/events', created, { asset_id: asset.id, extra });
}

interface Server {
  /** Origin and path, without a slash at the end and without credentials. */
  url: string;
  /** For sentences. */
  place: string;
  headers: Record<string, string>;
}

/** User and password may stand in the address too; they are never shown. */
async function logIn(settings: AirflowSettings & { AIRFLOW_URL: string }): Promise<Server> {
  const address = new URL(settings.AIRFLOW_URL);
  const url = `${address.origin}${address.pathname}`.replace(/\/+$/, '');
  const server = { url, place: `Airflow at ${url}`, headers: {} };
  const username = settings.AIRFLOW_USERNAME ?? decodeURIComponent(address.username);
  const password = settings.AIRFLOW_PASSWORD ?? decodeURIComponent(address.password);
  if (settings.AIRFLOW_TOKEN !== undefined) return withToken(server, settings.AIRFLOW_TOKEN);
  if (username === '') return server;
  const { access_token: given } = await ask(server, '/auth/token', token, { username, password });
  return withToken(server, given);
}

function withToken(server: Server, bearer: string): Server {
  return { ...server, headers: { authorization: `Bearer ${bearer}` } };
}

async function ask<Schema extends z.ZodType>(
  server: Server,
  path: string,
  schema: Schema,
  body?: unknown,
): Promise<z.output<Schema>> {
  const { status, text } = await send(server, path, body);
  if (status === 401 || status === 403) {
    const cure = 'check AIRFLOW_USERNAME and AIRFLOW_PASSWORD, or AIRFLOW_TOKEN';
    throw new DandelionError(
      'bad-config',
      `${server.place} does not let us in (${status} for ${path}): ${cure}.`,
    );
  }
  if (status === 429 || status >= 500) {
    throw new DandelionError('store-unavailable', `${server.place} is in trouble (${status} for ${path}).`, {
      retryAfterMs: 2000,
    });
  }
  const answer = status < 300 ? schema.safeParse(parseJson(text)) : undefined;
  if (answer?.success) return answer.data;
  throw new DandelionError(
    'bad-config',
    `${server.place} answered ${status} to ${path}, not as Airflow 3 does (${text.slice(0, 200)}): check AIRFLOW_URL.`,
  );
}

async function send(server: Server, path: string, body: unknown): Promise<{ status: number; text: string }> {
  try {
    const response = await fetch(`${server.url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { ...server.headers, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      redirect: 'manual',
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    return { status: response.status, text: await response.text() };
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    const inner = error.cause instanceof Error ? error.cause : error;
    throw new DandelionError(
      'store-unavailable',
      `${server.place} does not answer (${inner.message || inner.name}); try again in a moment, or check AIRFLOW_URL.`,
      { cause: thrown, retryAfterMs: 2000 },
    );
  }
}
