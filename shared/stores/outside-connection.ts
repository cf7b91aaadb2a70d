import { type LookupAddress, lookup as systemLookup } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import { Agent, buildConnector } from 'undici';
import { DandelionError } from '../errors.ts';
import { isForbiddenAddress, isPrivateAddress } from './addresses.ts';

const CONNECT_TIMEOUT_MS = 10_000;

type Reach = 'public' | 'exempt';
const agents = new WeakMap<LookupFunction, Map<Reach, Agent>>();

/**
 * The connection pool for one target. Connections are pooled apart by what they were checked against, so that
 * one made for an exempt host never serves a caller who did not exempt it.
 */
export function agentFor(
  target: URL,
  allowedHosts: readonly string[],
  lookup: LookupFunction = systemLookup as LookupFunction,
): Agent {
  const reach: Reach = isAllowedByName(target, allowedHosts) ? 'exempt' : 'public';
  const known = agents.get(lookup) ?? new Map<Reach, Agent>();
  agents.set(lookup, known);
  const agent = known.get(reach) ?? new Agent({ connect: guardedConnector(lookup, reach) });
  known.set(reach, agent);
  return agent;
}

function isAllowedByName(target: URL, allowedHosts: readonly string[]): boolean {
  const name = bareHost(target.hostname);
  const port = target.port || (target.protocol === 'https:' ? '443' : '80');
  return allowedHosts.some((allowed) => {
    const host = bareHost(allowed);
    return host === name || host === `${name}:${port}` || host === `[${name}]:${port}`;
  });
}

/** Lower case, without the brackets of an IPv6 address and without the dot that ends a full DNS name. */
function bareHost(host: string): string {
  return host
    .trim()
    .toLowerCase()
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '');
}

/**
 * Judges the address in the lookup that the socket itself uses: what was checked is what is connected to, so a
 * name that resolves differently the second time (DNS rebinding) gains nothing. Sockets skip the lookup for
 * literal addresses, so those are judged before.
 */
function guardedConnector(lookup: LookupFunction, reach: Reach): buildConnector.connector {
  const connect = buildConnector({
    allowH2: false,
    timeout: CONNECT_TIMEOUT_MS,
    lookup: (hostname, lookupOptions, callback) => {
      lookup(hostname, { ...lookupOptions, all: true }, (error, found) => {
        if (error !== null) return callback(error, '');
        const addresses = found as unknown as LookupAddress[];
        const bad = addresses.find(({ address }) => isRefused(address, reach));
        if (bad !== undefined) return callback(addressRefused(hostname, bad.address), '');
        const [first] = addresses;
        if (first === undefined) return callback(new Error(`${hostname} has no address`), '');
        return lookupOptions.all === true
          ? callback(null, addresses)
          : callback(null, first.address, first.family);
      });
    },
  });
  return (target, callback) => {
    const host = bareHost(target.hostname);
    if (isIP(host) !== 0 && isRefused(host, reach)) return callback(addressRefused(host, host), null);
    return connect(target, callback);
  };
}

function isRefused(address: string, reach: Reach): boolean {
  return reach === 'exempt' ? isForbiddenAddress(address) : isPrivateAddress(address);
}

function addressRefused(host: string, address: string): DandelionError {
  const what = host === address ? `The address ${address}` : `${host} leads to ${address}, which`;
  if (isForbiddenAddress(address))
    return refused(`${what} is a link-local or metadata address: never fetched.`);
  return refused(`${what} is not on the public internet; to fetch from it, allow the host by name.`);
}

/** The error of an address that may not be fetched. */
export function refused(sentence: string): DandelionError {
  return new DandelionError('address-refused', sentence);
}
