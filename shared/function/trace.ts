import { randomBytes } from 'node:crypto';

/** Where an invocation stands in a distributed trace. */
export interface Trace {
  /** 32 hex digits; the same from the first request to the last event of a pipeline. */
  traceId: string;
  /** 16 hex digits; this invocation's own. */
  spanId: string;
  /** The W3C header for whatever this invocation calls or sends. */
  traceparent: string;
}

const pattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const SAMPLED = '01';

interface Parent {
  traceId: string;
  flags: string;
}

/**
 * Continues the trace of the first candidate that is a valid `traceparent`; without one a new trace begins.
 * Later versions of the header are read as far as version 00 goes, as the recommendation asks.
 *
 * Source: W3C Trace Context, section 3.2.
 */
export function continueTrace(...candidates: unknown[]): Trace {
  const parent = candidates.map(parse).find((found) => found !== undefined);
  const traceId = parent?.traceId ?? randomBytes(16).toString('hex');
  const spanId = randomBytes(8).toString('hex');
  return { traceId, spanId, traceparent: `00-${traceId}-${spanId}-${parent?.flags ?? SAMPLED}` };
}

function parse(header: unknown): Parent | undefined {
  if (typeof header !== 'string') return undefined;
  const [, version, traceId, spanId, flags, rest] = pattern.exec(header) ?? [];
  if (version === undefined || traceId === undefined || flags === undefined) return undefined;
  const invalid = version === 'ff' || (version === '00' && rest !== undefined);
  if (invalid || /^0+$/.test(traceId) || /^0+$/.test(spanId ?? '0')) return undefined;
  return { traceId, flags };
}
