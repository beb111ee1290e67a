// The client's address, by which connections and attempts are counted. It is the peer's, unless the peer is a proxy of
// the operator's own, which then names the client in X-Forwarded-For. Anyone may send that header, so it is read from
// the right, and only as far as trusted proxies have written it.

import { isIP, isIPv4 } from 'node:net';
import { parse, parseCIDR, subnetMatch, type IPv4, type IPv6 } from 'ipaddr.js';

type Address = IPv4 | IPv6;
type Range = [Address, number];

/** The proxies whose header is believed. */
export class TrustedProxies {
  readonly #ranges: { readonly trusted: Range[] };

  private constructor(trusted: Range[]) {
    this.#ranges = { trusted };
  }

  /**
   * A comma-separated list of addresses, of ranges such as 10.0.0.0/8, and of the names below; undefined for another
   * text.
   */
  static parse(text: string): TrustedProxies | undefined {
    const parts = text.split(',').map((part) => part.trim());
    const texts = parts.filter((part) => part !== '').flatMap((part) => namedRanges.get(part) ?? [part]);
    const ranges = texts.map(rangeOf).filter((range) => range !== undefined);
    return ranges.length > 0 && ranges.length === texts.length ? new TrustedProxies(ranges) : undefined;
  }

  has(address: Address): boolean {
    return subnetMatch(address, this.#ranges, 'other') === 'trusted';
  }
}

const namedRanges: ReadonlyMap<string, readonly string[]> = new Map([
  ['loopback', ['127.0.0.0/8', '::1']],
  ['private', ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7']],
]);

function rangeOf(text: string): Range | undefined {
  const [start = '', bits, ...rest] = text.split('/');
  const address = addressOf(start);
  if (address === undefined || rest.length > 0) return undefined;
  const isV4 = isIPv4(start);
  if (bits === undefined) return [address, address.kind() === 'ipv4' ? 32 : 128];
  // Of a mapped IPv4 address, the bits would be counted from the start of the IPv6 address.
  if (!/^\d{1,3}$/.test(bits) || Number(bits) > (isV4 ? 32 : 128) || (address.kind() === 'ipv4') !== isV4) {
    return undefined;
  }
  return parseCIDR(text);
}

/**
 * The client's address, the same text for all spellings of it. One IPv6 client may choose from a whole /64, so that is
 * what counts. `peer` is who opened the connection, `forwarded` the header X-Forwarded-For.
 */
export function clientAddress(
  peer: string,
  forwarded: string | null,
  trusted: TrustedProxies | undefined,
): string | undefined {
  const own = addressOf(peer);
  if (own === undefined) return undefined;
  return countedAs(trusted === undefined || forwarded === null ? own : behind(own, forwarded, trusted));
}

/** Reads it from a request. `peerOf` answers who sent the request, or undefined when the sender is gone. */
export function addressReader(
  peerOf: (request: Request) => string | undefined,
  trusted: TrustedProxies | undefined,
): (request: Request) => string | undefined {
  return (request) => {
    const peer = peerOf(request);
    return peer === undefined ? undefined : clientAddress(peer, request.headers.get('x-forwarded-for'), trusted);
  };
}

/** The first address from the right that is no trusted proxy; the leftmost if all are. */
function behind(peer: Address, forwarded: string, trusted: TrustedProxies): Address {
  let nearest = peer;
  let end = forwarded.length;
  while (end >= 0 && trusted.has(nearest)) {
    const comma = forwarded.lastIndexOf(',', end - 1);
    const address = addressOf(withoutPort(forwarded.slice(comma + 1, end).trim()));
    // No address: whatever wrote this cannot be relied on, so the proxy itself counts.
    if (address === undefined) return peer;
    nearest = address;
    if (comma <= 0) break;
    end = comma;
  }
  return nearest;
}

/** Some proxies add the port, with brackets around an IPv6 address. */
function withoutPort(text: string): string {
  const [, bracketed, v4] = /^(?:\[([^\]]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+)$/.exec(text) ?? [];
  return bracketed ?? v4 ?? text;
}

/** An IPv4 address that is mapped into IPv6 is itself. Undefined for a text that is no address. */
function addressOf(text: string): Address | undefined {
  // The library alone would also read `1.2.3`, octal and hexadecimal numbers, and reads fewer names of zones.
  if (isIP(text) === 0) return undefined;
  const address = parse(text.replace(/%.*$/, ''));
  return 'toIPv4Address' in address && address.isIPv4MappedAddress() ? address.toIPv4Address() : address;
}

function countedAs(address: Address): string {
  if (!('parts' in address)) return address.toString();
  const network = address.parts.slice(0, 4);
  return `${network.map((group) => group.toString(16)).join(':')}::/64`;
}
