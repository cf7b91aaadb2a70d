import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';
import { ask, placeOf } from '../doctor/http.ts';
import type { KibanaDefinitions, Rule } from './definitions.ts';
import { actionsOf, ruleBody, ruleKind } from './rules.ts';
import { savedObjects } from './saved-objects.ts';

export interface KibanaAddress {
  /** User and password may stand in it; a space as `/s/{space}` at its end. */
  url: string;
  apiKey?: string | undefined;
}

const server = { name: 'Kibana', variable: 'KIBANA_URL' };
const importAnswer = z.object({
  success: z.boolean(),
  successCount: z.number(),
  errors: z.array(z.looseObject({ id: z.string(), error: z.looseObject({ type: z.string() }) })).default([]),
});
const PAUSE_MS = 2000;

/**
 * Gives Kibana data views, dashboards and alert rules. What is there under the same ids is replaced; actions that
 * someone added to a rule are kept.
 *
 * @param waitMs how long Kibana may take to come up
 * @returns how many objects and rules it has from us now
 * @throws DandelionError `store-unavailable`, `store-forbidden`, `store-refused` with what Kibana says
 */
export async function importIntoKibana(
  address: KibanaAddress,
  { dashboards, rules }: KibanaDefinitions,
  waitMs: number,
): Promise<{ objects: number; rules: number }> {
  await untilUp(address, waitMs);
  const lines = savedObjects(dashboards).map((object) => JSON.stringify(object));
  const form = new FormData();
  form.append('file', new Blob([`${lines.join('\n')}\n`]), 'dandelion.ndjson');
  const text = await call(address, '/api/saved_objects/_import?overwrite=true', {
    method: 'POST',
    body: form,
  });
  const { success, successCount, errors } = importAnswer.parse(JSON.parse(text));
  if (!success) {
    const faults = errors.map(({ id, error }) => `${id}: ${error.type}`).join(', ');
    throw new DandelionError('store-refused', `Kibana did not take every object: ${faults}.`);
  }
  for (const rule of rules) await putRule(address, rule);
  return { objects: successCount, rules: rules.length };
}

async function putRule(address: KibanaAddress, rule: Rule): Promise<void> {
  const path = `/api/alerting/rule/${rule.id}`;
  const there = await send(address, path, {});
  const isNew = there.status === 404;
  const body = JSON.stringify(
    isNew ? { ...ruleBody(rule), ...ruleKind } : { ...ruleBody(rule), actions: actionsOf(there.text) },
  );
  const headers = { 'content-type': 'application/json' };
  await call(address, path, { method: isNew ? 'POST' : 'PUT', headers, body });
}

/** Kibana takes a minute to start, and answers 503 until it has migrated its indices. */
async function untilUp(address: KibanaAddress, waitMs: number): Promise<void> {
  const deadline = Date.now() + waitMs;
  for (;;) {
    const status = await send(address, '/api/status', {}).then(
      (answer) => answer.status,
      (error: unknown) => {
        if (Date.now() >= deadline) throw error;
        return 503;
      },
    );
    if (status !== 503) return;
    if (Date.now() >= deadline) {
      throw new DandelionError('store-unavailable', `Kibana at ${placeOf(address.url)} is not ready yet.`);
    }
    await sleep(PAUSE_MS);
  }
}

async function call(address: KibanaAddress, path: string, init: RequestInit): Promise<string> {
  const { status, text } = await send(address, path, init);
  if (status >= 200 && status < 300) return text;
  const place = `Kibana at ${placeOf(address.url)}`;
  if (status === 401 || status === 403) {
    throw new DandelionError(
      'store-forbidden',
      `${place} refuses ${path} (${status}): put user and password into KIBANA_URL, or set KIBANA_API_KEY.`,
    );
  }
  throw new DandelionError('store-refused', `${place} answered ${status} to ${path}: ${text.slice(0, 500)}`);
}

function send({ url, apiKey }: KibanaAddress, path: string, init: RequestInit) {
  const headers = new Headers(init.headers);
  headers.set('kbn-xsrf', 'dandelion');
  if (apiKey !== undefined) headers.set('authorization', `ApiKey ${apiKey}`);
  return ask(`${url.replace(/\/+$/, '')}${path}`, server, { ...init, headers });
}
