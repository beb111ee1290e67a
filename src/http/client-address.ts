// Who is on the other end: the address that connections and attempts are counted by. It is the peer's, unless the peer
// is a proxy of the operator's own, which then names who is behind it. Anyone may write the same header, so it is read
// from the right, and only as far as trusted proxies have written it.

import { BlockList, isIPv4, isIPv6 } from 'node:net';

/** Addresses of proxies that are believed. */
export class TrustedProxies {
  readonly #list = new BlockList();

  /** Undefined when the text is no comma-separated list of addresses, of ranges such as 10.0.0.0/8, and of the names below. */
  static parse(text: string): TrustedProxies | undefined {
    const proxies = new TrustedProxies();
    const parts = text.split(',').map((part) => part.trim());
    const ranges = parts.filter((part) => part !== '').flatMap((part) => namedRanges.get(part) ?? [part]);
    return ranges.length > 0 && ranges.every((range) => proxies.#add(range)) ? proxies : undefined;
  }

  has(address: string): boolean {
    return this.#list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
  }

  #add(range: string): boolean {
    const [text = '', bits, ...rest] = range.split('/');
    const address = plainAddress(text);
    if (address === undefined || rest.length > 0) return false;
    const isV4 = isIPv4(address);
    const bitsMax = isV4 ? 32 : 128;
    // Of an address that was written as a mapped one, the bits would count from elsewhere.
    if (bits !== undefined && (!/^\d{1,3}$/.test(bits) || Number(bits) > bitsMax || isIPv4(text) !== isV4))
      return false;
    this.#list.addSubnet(address, bits === undefined ? bitsMax : Number(bits), isV4 ? 'ipv4' : 'ipv6');
    return true;
  }
}

const namedRanges: ReadonlyMap<string, readonly string[]> = new Map([
  ['loopback', ['127.0.0.0/8', '::1']],
  ['private', ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7']],
]);

/**
 * The client's address as text that is the same for all its spellings, and for all that one IPv6 client may choose from:
 * the /64 of it. `peer` is who opened the connection, `forwarded` what X-Forwarded-For says.
 */
export function clientAddress(
  peer: string,
  forwarded: string | null,
  trusted: TrustedProxies | undefined,
): string | undefined {
  const own = plainAddress(peer);
  if (own === undefined) return undefined;
  return countedAs(trusted === undefined || forwarded === null ? own : behind(own, forwarded, trusted));
}

/** Reads it from a request; `peerOf` answers who sent it, undefined once that one is gone. */
export function addressReader(
  peerOf: (request: Request) => string | undefined,
  trusted: TrustedProxies | undefined,
): (request: Request) => string | undefined {
  return (request) => {
    const peer = peerOf(request);
    return peer === undefined ? undefined : clientAddress(peer, request.headers.get('x-forwarded-for'), trusted);
  };
}

/** The nearest to this server that is no trusted proxy; the farthest of all if they are. */
function behind(peer: string, forwarded: string, trusted: TrustedProxies): string {
  let nearest = peer;
  let end = forwarded.length;
  while (end >= 0 && trusted.has(nearest)) {
    const comma = forwarded.lastIndexOf(',', end - 1);
    const address = plainAddress(withoutPort(forwarded.slice(comma + 1, end).trim()));
    // Something else than an address: who wrote it is not to be relied on.
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

/** Without a zone; IPv4 in IPv6 is IPv4. Undefined for what is no address. */
function plainAddress(text: string): string | undefined {
  const [address = ''] = text.split('%');
  if (isIPv4(address)) return address;
  if (!isIPv6(address)) return undefined;
  const groups = groupsOf(address);
  const [a = 0, b = 0] = groups.slice(6);
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  return isMapped ? `${a >> 8}.${a & 255}.${b >> 8}.${b & 255}` : address;
}

function countedAs(address: string): string {
  if (isIPv4(address)) return address;
  const network = groupsOf(address).slice(0, 4);
  return `${network.map((group) => group.toString(16)).join(':')}::/64`;
}

/** The eight numbers of a valid IPv6 address. */
function groupsOf(address: string): number[] {
  const hexadecimal = address.replace(/\d+\.\d+\.\d+\.\d+$/, (v4) => {
    const [a = 0, b = 0, c = 0, d = 0] = v4.split('.').map(Number);
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
  const [head = '', tail] = hexadecimal.split('::');
  const numbers = (text: string): number[] =>
    text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
  const [front, back] = [numbers(head), numbers(tail ?? '')];
  return tail === undefined ? front : [...front, ...Array<number>(8 - front.length - back.length).fill(0), ...back];
}
