import { setTimeout as delay } from 'node:timers/promises';
import { DandelionError, toDandelionError } from '../../errors.ts';
import { airflow } from './airflow.ts';
import { broker } from './broker.ts';
import type { Check, Finding } from './check.ts';
import { elasticsearch } from './elasticsearch.ts';
import { dataFolder } from './folders.ts';
import { kibana } from './kibana.ts';
import { kubernetes } from './kubernetes.ts';
import { libraries, node } from './node.ts';
import { objects } from './objects.ts';
import { postgresql } from './postgresql.ts';
import type { DoctorSettings } from './settings.ts';
import { tracking } from './tracking.ts';

export type NamedFinding = Finding & { name: string };

const checks: readonly Check[] = [
  node,
  libraries,
  dataFolder,
  postgresql,
  objects,
  tracking,
  elasticsearch,
  kibana,
  broker,
  airflow,
  kubernetes,
];

const CHECK_WITHIN_MS = 15_000;
/** Signatures and tokens are refused from minutes on; leases and the order of logs suffer before. */
const CLOCKS_WITHIN_MS = 10_000;

/** A server that has said nothing for so long does not slow the next check down. */
const SILENT_AFTER_MS = 1000;

/**
 * Does one check after the other, so that none slows another down, but for those that wait for a silent server; then
 * compares the clocks they met.
 */
export async function* examine(settings: DoctorSettings): AsyncGenerator<NamedFinding> {
  let turn: Promise<unknown> = Promise.resolve();
  const looks = checks.map((check) => {
    const begun = turn;
    const looking = begun.then(() => look(check, settings));
    turn = Promise.race([looking, begun.then(() => delay(SILENT_AFTER_MS))]);
    return looking.then((finding) => ({ name: check.name, ...finding }));
  });
  const found: NamedFinding[] = [];
  for (const looking of looks) {
    const finding = await looking;
    found.push(finding);
    yield finding;
  }
  yield { name: 'Clocks', ...compareClocks(found) };
}

async function look(check: Check, settings: DoctorSettings): Promise<Finding> {
  const limit = new AbortController();
  const tooLong = async (): Promise<never> => {
    await delay(CHECK_WITHIN_MS, undefined, { signal: limit.signal });
    throw new DandelionError('time-limit', `${describeSilence(check, settings)}.`);
  };
  try {
    return await Promise.race([check.look(settings), tooLong()]);
  } catch (thrown) {
    const { code, message } = toDandelionError(thrown);
    return { status: 'trouble', code, detail: message };
  } finally {
    limit.abort();
  }
}

/** Names the server without user and password. */
function describeSilence({ name, variable }: Check, settings: DoctorSettings): string {
  const value = variable === undefined ? undefined : settings[variable];
  const silence = `does not answer within ${CHECK_WITHIN_MS / 1000} s: see that it runs`;
  if (typeof value !== 'string') return `${name} ${silence}`;
  return `${name} (${URL.parse(value)?.host || value}) ${silence}, and check ${variable}`;
}

/** Compares this machine's clock with those of the servers that told theirs. */
function compareClocks(found: readonly NamedFinding[]): Finding {
  const clocks = found.flatMap(({ name, clockAheadMs: ahead }) =>
    ahead === undefined ? [] : [{ name, ahead }],
  );
  if (clocks.length === 0) return { status: 'not configured', detail: 'no server told the time' };
  const wrong = clocks.filter(({ ahead }) => Math.abs(ahead) > CLOCKS_WITHIN_MS);
  if (wrong.length === 0) {
    return {
      status: 'ok',
      detail: `within ${CLOCKS_WITHIN_MS / 1000} s of ${clocks.map(({ name }) => name).join(', ')}`,
    };
  }
  const sides = wrong.map(
    ({ name, ahead }) =>
      `${name} is ${Math.round(Math.abs(ahead) / 1000)} s ${ahead > 0 ? 'ahead' : 'behind'}`,
  );
  return {
    status: 'trouble',
    code: 'clock-skewed',
    detail: `Against this machine, ${sides.join(', ')}: set the clocks right (NTP).`,
  };
}
