// The forms of REDIS_URL, and what each of them says. Knows no driver, so that settings are checked without one.
//
//   redis://user:password@host:6379/2                    one server; a node of a Redis Cluster is found to be one
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
  /** At least one; of a server exactly one; of Sentinels theirs. */
  readonly hosts: readonly RedisHost[];
  readonly tls: boolean;
  readonly account: RedisAccount;
  readonly database: number;
  /** 4 or 6 when names shall be resolved to such an address only. */
  readonly family: 4 | 6 | undefined;
  /** Of Sentinels: the name of what they watch. */
  readonly master: string;
  readonly sentinelAccount: RedisAccount;
}

const form = /^(rediss?)(\+sentinel|\+cluster)?:\/\/(?:([^/?#]*)@)?([^/?#@]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
const hostForm = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/;
const parameters = ['db', 'family', 'sentinelUsername', 'sentinelPassword'];

/** Throws an error that says what is wrong and shows nothing of the text, which may hold a password anywhere. */
export function parseRedisUrl(text: string): RedisUrl {
  const match = form.exec(text);
  if (match === null) throw new Error('it is not of the form redis://user:password@host:port/database');
  const [, scheme, plus, account = '', hostList = '', path = '', queryText = ''] = match;
  const kind = plus === '+sentinel' ? 'sentinel' : plus === '+cluster' ? 'cluster' : 'server';
  const query = new URLSearchParams(queryText);
  const unknown = [...query.keys()].some((name) => !parameters.includes(name));
  if (unknown) throw new Error(`it has a parameter that is none of ${parameters.join(', ')}`);
  const hosts = hostList.split(',').map((part) => parseHost(part, kind === 'sentinel' ? 26_379 : 6_379));
  if (kind === 'server' && hosts.length > 1) {
    throw new Error('it names several hosts: then it begins with redis+sentinel:// or redis+cluster://');
  }
  const parts = path.split('/').filter((part) => part !== '');
  const master = kind === 'sentinel' ? decode(parts.shift() ?? '') : '';
  if (kind === 'sentinel' && master === '') {
    throw new Error('it does not name the master after the hosts, as in redis+sentinel://host:26379/main');
  }
  if (parts.length > 1) throw new Error('its path has too many parts');
  const database = parseDatabase(parts[0] ?? query.get('db') ?? '0');
  if (kind === 'cluster' && database !== 0) throw new Error('a Redis Cluster has no database but 0');
  const sentinelAccount = {
    ...(query.has('sentinelUsername') ? { username: query.get('sentinelUsername') ?? '' } : {}),
    ...(query.has('sentinelPassword') ? { password: query.get('sentinelPassword') ?? '' } : {}),
  };
  if (kind !== 'sentinel' && Object.keys(sentinelAccount).length > 0) {
    throw new Error('a password of Sentinels needs redis+sentinel://');
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
  if (host === undefined || port > 65_535) throw new Error('it has a host that is none');
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
  if (!/^\d{1,5}$/.test(text)) throw new Error('it has a database number that is none');
  return Number(text);
}

function parseFamily(text: string | null): 4 | 6 | undefined {
  if (text === null) return undefined;
  if (text === '4') return 4;
  if (text === '6') return 6;
  throw new Error('its family is not 4 or 6');
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('it has a % that is not followed by two hexadecimal digits');
  }
}
