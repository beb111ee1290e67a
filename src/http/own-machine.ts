// A development server without keys believes every caller, so it answers only under names of this machine, and only to
// pages of this machine. Without the first check a page of any site could point its own name at this address (DNS
// rebinding) and would then be no foreign page. Without the second it could connect and publish by a WebSocket, which
// browsers open to any address.

import { networkInterfaces } from 'node:os';
import { isIP } from 'node:net';
import { parse } from 'ipaddr.js';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isOwn, originOf } from './origins.ts';

export interface OwnMachineOptions {
  /** What the server listens on. */
  readonly listeningHost: string;
  /** ALLOWED_ORIGINS: these pages may come, and their names may be this server's. */
  readonly allowedOrigins: readonly string[] | undefined;
  /** Tokens are checked: then pages of any origin may connect, with one. */
  readonly takesTokens: boolean;
}

export class OwnMachine {
  readonly #options: OwnMachineOptions;
  readonly #allowedHosts: ReadonlySet<string>;

  constructor(options: OwnMachineOptions) {
    this.#options = options;
    const allowed = (options.allowedOrigins ?? []).filter((origin) => origin !== '*');
    this.#allowedHosts = new Set(allowed.map((origin) => nameOf(new URL(origin).host)));
  }

  /** Throws `forbidden` for another name than this machine's, and for a page of another machine. */
  check(request: Request): void {
    const { allowedOrigins, takesTokens } = this.#options;
    if (allowedOrigins?.includes('*') === true) return;
    const host = request.headers.get('host');
    if (host !== null && host !== '' && !this.#isOurs(nameOf(host.toLowerCase()))) {
      throw new RealtimeError(
        'forbidden',
        'A server without keys answers only under localhost and its own address; ALLOWED_ORIGINS adds other names.',
      );
    }
    const origin = originOf(request);
    // A preflight tells the page that it may not go on.
    if (takesTokens || origin === undefined || request.method === 'OPTIONS') return;
    if (isOwn(request, origin) || request.headers.get('sec-fetch-site') === 'same-origin') return;
    if (allowedOrigins?.includes(origin) === true || isOfThisMachine(origin)) return;
    throw new RealtimeError(
      'forbidden',
      'A server without keys answers only to pages of this machine; ALLOWED_ORIGINS names others.',
    );
  }

  #isOurs(name: string): boolean {
    return isLocal(name) || name === this.#options.listeningHost || this.#allowedHosts.has(name) || isInterface(name);
  }
}

/** Without the port, the brackets of an IPv6 address and the dot that may end a full name. */
function nameOf(host: string): string {
  const name = host.startsWith('[') ? host.slice(1).replace(/\].*$/, '') : host.replace(/:[^:]*$/, '');
  return name.replace(/\.$/, '');
}

function isOfThisMachine(origin: string): boolean {
  return URL.canParse(origin) && isLocal(nameOf(new URL(origin).host));
}

/** No public name is without a dot: it is one of this machine or of its own network, such as a container's. */
function isLocal(name: string): boolean {
  if (isIP(name) !== 0) return parse(name.replace(/%.*$/, '')).range() === 'loopback';
  return !name.includes('.') || name.endsWith('.localhost');
}

/** Looked up each time: a machine may change its network. */
function isInterface(name: string): boolean {
  if (isIP(name) === 0) return false;
  const address = parse(name.replace(/%.*$/, '')).toNormalizedString();
  return Object.values(networkInterfaces())
    .flat()
    .some((each) => each !== undefined && parse(each.address).toNormalizedString() === address);
}
