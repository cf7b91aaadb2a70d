import { randomUUID } from 'node:crypto';
import { isIP } from 'node:net';
import { z } from 'zod';
import { count, type Environment, list, readConfig } from '../config.ts';
import { DandelionError } from '../errors.ts';
import type { FunctionModule } from './types.ts';

/** Knative's CloudEventOverrides as JSON. */
const ceOverrides = z
  .string()
  .transform((text, context): unknown => {
    try {
      return JSON.parse(text);
    } catch {
      context.addIssue({ code: 'custom', message: 'is no JSON' });
      return z.NEVER;
    }
  })
  .pipe(z.object({ extensions: z.record(z.string().regex(/^[a-z0-9]+$/), z.string()).default({}) }));

const corsOrigin = z
  .string()
  .refine((text) => text === '*' || URL.parse(text)?.origin === text.replace(/\/$/, '').toLowerCase(), {
    error: 'use origins such as https://flowers.example, or *',
  });

/** Names that proxy-addr knows, beside addresses and networks. */
const proxyNames = ['loopback', 'linklocal', 'uniquelocal'] as const;

const proxies = list
  .refine((items) => items.every((item) => isProxy(item) || (item === 'none' && items.length === 1)), {
    error: `use addresses, networks such as 10.244.0.0/16, ${proxyNames.join(', ')}, or none`,
  })
  .transform((items) => items.filter((item) => item !== 'none'));

function isProxy(item: string): boolean {
  if (proxyNames.some((name) => name === item)) return true;
  const [address = '', prefix, ...rest] = item.split('/');
  const family = isIP(address);
  const bits = family === 6 ? 128 : 32;
  const fits = prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits);
  return family !== 0 && fits && rest.length === 0;
}

const schema = z.object({
  PORT: count().max(65_535).default(8080),
  HOST: z.string().default('127.0.0.1'),
  DANDELION_TOKEN: z.string().min(16, 'use at least 16 characters').optional(),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  /** Owner of leases; must differ between processes that live at the same time. */
  INSTANCE_ID: z.string().default(() => randomUUID()),
  /** Set by Knative: its queue-proxy is then the only way in, and the cluster decides who may call. */
  K_SERVICE: z.string().optional(),
  K_REVISION: z.string().optional(),
  /** Through which this process keeps its pod while it works; default on Knative: its queue-proxy. */
  QUEUE_PROXY_URL: z.url({ protocol: /^http$/ }).optional(),
  DATABASE_URL: z.string().optional(),
  /** How long a start waits for stores that do not answer. Default: 5 minutes on Knative, elsewhere it fails at once. */
  INIT_PATIENCE_MS: count().optional(),
  /**
   * How long a readiness probe that comes while the function starts is held. Shorter than the 1 s that a probe is given
   * where nobody says otherwise: what is the matter is always said.
   */
  PROBE_HOLD_MS: count().default(700),
  /** Where notices go, and what is to be set on each; Knative's SinkBinding sets both. */
  K_SINK: z.url({ protocol: /^https?$/ }).optional(),
  /** Bearer token that the sink asks for; for a sink on this machine, DANDELION_TOKEN by default. */
  K_SINK_TOKEN: z.string().optional(),
  K_CE_OVERRIDES: ceOverrides.default({ extensions: {} }),
  /**
   * How the result of a step that a broker delivered goes on: as the reply, or by the outbox to K_SINK. Knative's
   * in-memory channels hold the replies of a whole chain in the first sender's request, so there it is `sink`.
   */
  RESULT_DELIVERY: z.enum(['reply', 'sink']).default('reply'),
  /** Notices kept in memory while the sink does not take them, instead of the function's own limit. */
  NOTICE_BUFFER: count(1).optional(),
  /** How long SIGTERM waits for work before it is handed over. */
  GRACE_PERIOD_MS: count().default(25_000),
  LEASE_MS: count(100).default(30_000),
  HEARTBEAT_MS: count(10).default(10_000),
  SWEEP_MS: count(10).default(10_000),
  /** Sustained delay of the event loop above which work is refused. */
  EVENT_LOOP_DELAY_LIMIT_MS: count(1).default(1000),
  EVENT_LOOP_SAMPLE_MS: count(10).default(1000),
  /** Calls a second and client that an open function takes when bound beyond loopback. */
  RATE_LIMIT_PER_SECOND: count(1).default(50),
  /**
   * Proxies whose X-Forwarded-For is believed: who asks is the last address in it that is none of them. Default: this
   * machine, and on Knative the private networks too, where ingress, activator and queue-proxy are.
   */
  TRUSTED_PROXIES: proxies.optional(),
  /** Origins whose pages may call an open function, or `*`; other functions take no calls of other pages. */
  CORS_ORIGINS: list.pipe(z.array(corsOrigin)).default([]),
  /** A client that has not sent its headers, its whole request, by then is cut off. */
  HEADERS_TIMEOUT_MS: count(100).default(10_000),
  REQUEST_TIMEOUT_MS: count(100).default(60_000),
});
/** How a function's process ends that could not start with the settings it was given. */
export const BAD_CONFIG_EXIT = 2;

/** What a process needs before it can say anything. */
export const startupSettings = schema.pick({ LOG_LEVEL: true, INSTANCE_ID: true });
export type RuntimeSettings = z.infer<typeof schema> & {
  INIT_PATIENCE_MS: number;
  TRUSTED_PROXIES: string[];
};

const KNATIVE_PATIENCE_MS = 300_000;

/**
 * Reads the runtime's own settings; a function's settings are its own affair.
 *
 * @throws DandelionError `bad-config` when a variable is wrong, or when the server would be reachable from other
 * machines without a token
 */
export function readRuntimeSettings(env: Environment, module: Pick<FunctionModule, 'open'>): RuntimeSettings {
  const settings = readConfig(schema, env);
  const guarded = isLoopback(settings.HOST) || settings.K_SERVICE !== undefined || module.open === true;
  if (!guarded && settings.DANDELION_TOKEN === undefined) {
    throw new DandelionError(
      'bad-config',
      `HOST is ${settings.HOST}, so other machines could call this function: set DANDELION_TOKEN, or HOST=127.0.0.1.`,
    );
  }
  if (settings.RESULT_DELIVERY === 'sink' && settings.K_SINK === undefined) {
    throw new DandelionError(
      'bad-config',
      'RESULT_DELIVERY is sink: set K_SINK to the address of the broker.',
    );
  }
  if (settings.HEARTBEAT_MS * 2 > settings.LEASE_MS) {
    throw new DandelionError('bad-config', 'HEARTBEAT_MS must be at most half of LEASE_MS.');
  }
  const onKnative = settings.K_SERVICE !== undefined;
  const patienceMs = onKnative ? KNATIVE_PATIENCE_MS : 0;
  return {
    ...settings,
    INIT_PATIENCE_MS: settings.INIT_PATIENCE_MS ?? patienceMs,
    TRUSTED_PROXIES: settings.TRUSTED_PROXIES ?? (onKnative ? [...proxyNames] : ['loopback']),
  };
}

/** True for addresses and names that only this machine can reach. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  if (bare === 'localhost' || bare.endsWith('.localhost') || bare === '::1') return true;
  return isIP(bare) === 4 && bare.startsWith('127.');
}

/**
 * What a function's process should be started with. glibc gives memory back to the system beyond this many bytes; left
 * to itself it keeps what loading a model took: predict holds 300 MB under load with it and 350 without.
 */
export const processEnvironment = { MALLOC_TRIM_THRESHOLD_: '262144' } as const;
