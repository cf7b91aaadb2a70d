import { BlockList, isIPv4, isIPv6 } from 'node:net';

type Range = readonly [address: string, prefix: number];

/**
 * IPv4 ranges that are not hosts on the public internet (IANA IPv4 Special-Purpose Address Registry, multicast
 * and reserved space).
 */
const privateIpv4: readonly Range[] = [
  ['0.0.0.0', 8], // "this" network
  ['10.0.0.0', 8], // private
  ['100.64.0.0', 10], // shared by carrier-grade NAT
  ['127.0.0.0', 8], // loopback
  ['169.254.0.0', 16], // link-local, instance metadata
  ['172.16.0.0', 12], // private
  ['192.0.0.0', 24], // protocol assignments
  ['192.0.2.0', 24], // documentation
  ['192.31.196.0', 24], // AS112
  ['192.52.193.0', 24], // AMT relays
  ['192.88.99.0', 24], // 6to4 relays, deprecated
  ['192.168.0.0', 16], // private
  ['192.175.48.0', 24], // AS112
  ['198.18.0.0', 15], // benchmarks
  ['198.51.100.0', 24], // documentation
  ['203.0.113.0', 24], // documentation
  ['224.0.0.0', 4], // multicast
  ['240.0.0.0', 4], // reserved, broadcast
];

/**
 * Special ranges inside global unicast space (2000::/3, IANA IPv6 Special-Purpose Address Registry). Whatever is
 * outside 2000::/3 is refused whole: loopback, unique-local, link-local, multicast, IPv4-mapped and NAT64 forms.
 */
const privateIpv6: readonly Range[] = [
  ['2001::', 23], // protocol assignments: Teredo, ORCHID, benchmarks
  ['2001:db8::', 32], // documentation
  ['2002::', 16], // 6to4: carries an IPv4 address
  ['2620:4f:8000::', 48], // AS112
  ['3fff::', 20], // documentation
];

/** Link-local ranges and metadata services of clouds, in every form: nothing exempts them. */
const forbidden: readonly Range[] = [
  ['169.254.0.0', 16], // metadata of nearly every cloud
  ['100.100.100.200', 32], // Alibaba Cloud metadata
  ['168.63.129.16', 32], // Azure platform address
  ['192.0.0.192', 32], // Oracle Cloud metadata, classic
  ['fe80::', 10],
  ['fd00:ec2::', 32], // AWS metadata over IPv6
  ['fd20:ce::254', 128], // Google Cloud metadata over IPv6
  ['64:ff9b::a9fe:0', 112], // 169.254.0.0/16 behind NAT64
  ['2002:a9fe::', 32], // 169.254.0.0/16 behind 6to4
  ['::a9fe:0', 112], // 169.254.0.0/16, IPv4-compatible
];

const privateRanges = blockListOf([...privateIpv4, ...privateIpv6, ...forbidden]);
const forbiddenRanges = blockListOf(forbidden);
const globalUnicast = blockListOf([['2000::', 3]]);

/** True unless the address is an ordinary host of the public internet; also true for what is no address at all. */
export function isPrivateAddress(address: string): boolean {
  if (isIPv4(address)) return privateRanges.check(address, 'ipv4');
  if (!isIPv6(address) || address.includes('%')) return true;
  return !globalUnicast.check(address, 'ipv6') || privateRanges.check(address, 'ipv6');
}

/** True for link-local and metadata addresses, which stay refused even for hosts allowed by name. */
export function isForbiddenAddress(address: string): boolean {
  if (isIPv4(address)) return forbiddenRanges.check(address, 'ipv4');
  // IPv4-mapped forms are judged by the IPv4 ranges: BlockList unwraps them.
  return !isIPv6(address) || address.includes('%') || forbiddenRanges.check(address, 'ipv6');
}

function blockListOf(ranges: readonly Range[]): BlockList {
  const list = new BlockList();
  for (const [address, prefix] of ranges) {
    list.addSubnet(address, prefix, isIPv4(address) ? 'ipv4' : 'ipv6');
  }
  return list;
}
