// Parses REDIS_URL. Knows no driver, so that settings are checked without one. Its forms:
//
//   redis://user:password@host:6379/2                    one server; if it is a node of a Redis Cluster, that cluster
//   redis+cluster://user:password@a:6379,b:6379          a Redis Cluster, by any of its nodes
//   redis+sentinel://user:password@a:26379,b:26379/main  the master that these Sentinels name `main`; then /2 or ?db=2,
//                                                        and ?sentinelPassword=, ?sentinelUsername= for themselves
//
// rediss:, rediss+cluster: and rediss+sentinel: are the same with TLS. A password may stand alone before the `@`.

export interface RedisHost {
  readonly host: string;
  readonly port: number;
}

export interface RedisAccount {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

export interface RedisUrl {
  readonly kind: 'server' | 'cluster' | 'sentinel';
  /** The server, some nodes of the cluster, or the Sentinels. At least one. */
  readonly hosts: readonly RedisHost[];
  readonly tls: boolean;
  readonly account: RedisAccount;
  readonly database: number;
  /** 4 or 6: host names are resolved to addresses of this family only. */
  readonly family: 4 | 6 | undefined;
  /** The name under which the Sentinels watch their master; empty without Sentinels. */
  readonly master: string;
  readonly sentinelAccount: RedisAccount;
}

const form = /^(rediss?)(\+sentinel|\+cluster)?:\/\/(?:([^/?#]*)@)?([^/?#@]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
/** Those of other clients, and what to write instead. */
const otherForms: readonly (readonly [RegExp, string])[] = [
  [
    /^(?:unix|rediss?[+-](?:unix|socket)):|^\/|^rediss?:\/\/(?:[^/?#]*@)?\//,
    'a Unix socket is not taken: let Redis listen on 127.0.0.1 too, and write redis://127.0.0.1:6379',
  ],
  [/^rediss?-sentinel:/, 'begin it with redis+sentinel://, and write the name of the master behind the hosts'],
  [/^rediss?-cluster:/, 'begin it with redis+cluster://'],
  [/^valkeys?:/, 'begin it with redis://, or with rediss:// for TLS'],
  [/^https?:/, 'it is the address of an HTTP interface: write the one that begins with redis:// or rediss://'],
  [/,\s*rediss?:\/\//, 'write one URL with all hosts: redis+cluster://host:6379,host:6379, or redis+sentinel://'],
];
const hostForm = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/;
const parameters = ['db', 'family', 'sentinelUsername', 'sentinelPassword'];

/**
 * Throws an error that says what is wrong and what is expected. It shows none of the text: a password may be anywhere.
 */
export function parseRedisUrl(text: string): RedisUrl {
  const [, instead] = otherForms.find(([other]) => other.test(text)) ?? [];
  if (instead !== undefined) throw new Error(instead);
  const match = form.exec(text);
  if (match === null) throw new Error('the URL does not have the form redis://user:password@host:port/database');
  const [, scheme, plus, account = '', hostList = '', path = '', queryText = ''] = match;
  const kind = plus === '+sentinel' ? 'sentinel' : plus === '+cluster' ? 'cluster' : 'server';
  const query = new URLSearchParams(queryText);
  const unknown = [...query.keys()].some((name) => !parameters.includes(name));
  if (unknown) throw new Error(`the URL has an unknown parameter; known are ${parameters.join(', ')}`);
  const hosts = hostList.split(',').map((part) => parseHost(part, kind === 'sentinel' ? 26_379 : 6_379));
  if (kind === 'server' && hosts.length > 1) {
    throw new Error('a URL with several hosts must begin with redis+sentinel:// or redis+cluster://');
  }
  const parts = path.split('/').filter((part) => part !== '');
  const master = kind === 'sentinel' ? decode(parts.shift() ?? '') : '';
  if (kind === 'sentinel' && master === '') {
    throw new Error('the name of the master is missing after the hosts, as in redis+sentinel://host:26379/main');
  }
  if (parts.length > 1)
    throw new Error('the path has too many parts; expected is /database, or /master/database with Sentinels');
  const database = parseDatabase(parts[0] ?? query.get('db') ?? '0');
  if (kind === 'cluster' && database !== 0) throw new Error('a Redis Cluster has only database 0');
  const sentinelAccount = {
    ...(query.has('sentinelUsername') ? { username: query.get('sentinelUsername') ?? '' } : {}),
    ...(query.has('sentinelPassword') ? { password: query.get('sentinelPassword') ?? '' } : {}),
  };
  if (kind !== 'sentinel' && Object.keys(sentinelAccount).length > 0) {
    throw new Error('a name or password for Sentinels needs a URL that begins with redis+sentinel://');
  }
  const family = parseFamily(query.get('family'));
  return {
    kind,
    hosts,
    tls: scheme === 'rediss',
    account: parseAccount(account),
    database,
    family,
    master,
    sentinelAccount,
  };
}

function parseHost(text: string, portDefault: number): RedisHost {
  const [, address, name, digits] = hostForm.exec(text) ?? [];
  const host = address ?? name;
  const port = Number(digits ?? portDefault);
  if (host === undefined) {
    throw new Error(
      'a host is missing or not valid; expected is a name, an IPv4 address, or an IPv6 address in brackets',
    );
  }
  if (port > 65_535) throw new Error('a port is higher than 65535');
  return { host, port };
}

function parseAccount(text: string): RedisAccount {
  if (text === '') return {};
  const colon = text.indexOf(':');
  // A name without a password would open nothing, so what stands alone is the password.
  if (colon === -1) return { password: decode(text) };
  const username = decode(text.slice(0, colon));
  return { password: decode(text.slice(colon + 1)), ...(username === '' ? {} : { username }) };
}

function parseDatabase(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new Error('the database is not a number, as in redis://host:6379/2');
  return Number(text);
}

function parseFamily(text: string | null): 4 | 6 | undefined {
  if (text === null) return undefined;
  if (text === '4') return 4;
  if (text === '6') return 6;
  throw new Error('the parameter family is neither 4 nor 6');
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('a % is not followed by two hexadecimal digits');
  }
}
