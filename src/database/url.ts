// Parses DATABASE_URL, by itself: no connection, no driver. Its forms are those of libpq, which other programs of a
// deployment share:
//
//   postgres://user:password@host:5432/database          one server
//   postgres://user@a:5432,b:5432/database               several: the first that is a primary is taken
//   postgres://user@/database?host=/var/run/postgresql   a Unix socket, by its folder; %2Fvar%2Frun%2Fpostgresql as the
//                                                        host is the same
//
// A parameter is taken, or left out as it is for other clients (Prisma, pools), or refused where leaving it out would
// weaken what was asked for. Any other one is a setting of PostgreSQL for each session, such as statement_timeout.

import { tlsOf, type DatabaseTls } from './tls.ts';

export interface DatabaseHost {
  readonly host: string;
  readonly port: number;
}

export interface DatabaseUrl {
  /** At least one; where there is a socket, what stands for it in messages. */
  readonly hosts: readonly DatabaseHost[];
  /** Path of the socket file. */
  readonly socket: string | undefined;
  readonly user: string | undefined;
  readonly password: string | undefined;
  readonly database: string | undefined;
  readonly tls: DatabaseTls;
  /** Without the usual exchange before it. */
  readonly tlsDirect: boolean;
  /** What a server must be, where the URL asks for it. */
  readonly target: 'primary' | 'read-write' | undefined;
  readonly connectSeconds: number | undefined;
  /** Statements may be prepared: false where a pooler gives each transaction another session. */
  readonly prepared: boolean;
  /** Settings of PostgreSQL for each session. */
  readonly session: Readonly<Record<string, string>>;
}

export const unencodedFault =
  'it is no URL as it stands; if its user or password holds one of these characters, write # as %23, / as %2F, ? as %3F,' +
  ' @ as %40, : as %3A and % as %25';

const form = /^postgres(?:ql)?:\/\/(?:([^/?#]*)@)?([^/?#@]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
const hostForm = /^(?:\[([0-9A-Fa-f:.]+)\]|([^\s:[\]]*))(?::(\d{1,5}))?$/;

/** Of other clients, or of no effect here. */
export const leftOut: ReadonlySet<string> = new Set([
  // Prisma and its like. The schema `realtime` has its name from us.
  ...['schema', 'connection_limit', 'pool_timeout', 'socket_timeout', 'pool_size', 'max_idle_connection_lifetime'],
  // The server names its own connections.
  ...['application_name', 'fallback_application_name', 'client_encoding', 'supa', 'workaround', 'uselibpqcompat'],
  ...['keepalives', 'keepalives_idle', 'keepalives_interval', 'keepalives_count', 'tcp_user_timeout'],
  ...['gssencmode', 'sslcompression', 'sslsni', 'load_balance_hosts'],
]);

/** What to write instead. */
export const refused: Readonly<Record<string, string>> = {
  hostaddr: 'write the address as the host',
  passfile: 'write the password into the URL',
  service: 'write host, user and database into the URL',
  servicefile: 'write host, user and database into the URL',
  sslaccept: 'write sslmode=verify-full, or sslmode=require for any certificate',
  sslidentity: 'write the files as sslcert= and sslkey=, in the PEM format',
  sslpassword: 'let sslkey= name a key without a passphrase',
  socket: 'write the folder of the socket as host=/var/run/postgresql',
  replication: 'leave it out',
  ...Object.fromEntries(
    [
      ...['sslcrl', 'sslcrldir', 'sslcertmode', 'ssl_min_protocol_version', 'ssl_max_protocol_version'],
      ...['require_auth', 'requirepeer', 'krbsrvname', 'gsslib', 'gssdelegation'],
    ].map((name) => [name, 'this server cannot do what it asks for; leave it out']),
  ),
};

/** Throws an error that says what is wrong and what to write instead. It shows none of the values. */
export function parseDatabaseUrl(text: string): DatabaseUrl {
  refuseOtherForms(text);
  const [, account, authority = '', path = '', queryText = ''] = form.exec(text) ?? fail(unencodedFault);
  // What stands behind the host may be the rest of a password.
  if (path.includes('@') || (account === undefined && queryText.includes('@'))) fail(unencodedFault);
  const query = parameters(queryText);
  const take = (name: string): string | undefined => {
    const value = query.get(name);
    query.delete(name);
    return value === '' ? undefined : value;
  };
  const { hosts, socket } = hostsOf(take('host') ?? authority, take('port'));
  const colon = account?.indexOf(':') ?? -1;
  const user = take('user') ?? decode(colon === -1 ? (account ?? '') : (account ?? '').slice(0, colon));
  const password = take('password') ?? (colon === -1 ? '' : decode((account ?? '').slice(colon + 1)));
  const database = take('dbname') ?? decode(path);
  const tls = tlsOf(tlsMode(take('sslmode'), take('channel_binding')), take('ssl'), {
    ca: take('sslrootcert'),
    cert: take('sslcert'),
    key: take('sslkey'),
  });
  const negotiation = take('sslnegotiation') ?? 'postgres';
  if (!['postgres', 'direct'].includes(negotiation)) fail('sslnegotiation is neither postgres nor direct');
  const target = targetOf(take('target_session_attrs'));
  const connectSeconds = secondsOf(take('connect_timeout'));
  const unprepared = [take('pgbouncer') === 'true', take('prepare') === 'false', take('statement_cache_size') === '0'];
  return {
    hosts,
    socket,
    user: user || undefined,
    password: password || undefined,
    database: database || undefined,
    // A socket of this machine has no TLS.
    tls: socket === undefined ? tls : false,
    tlsDirect: negotiation === 'direct',
    target,
    connectSeconds,
    prepared: !unprepared.includes(true),
    session: sessionOf(query),
  };
}

/** The same URL for a pooler that gives each transaction another session. */
export function unpreparedUrl(text: string): string {
  return `${text}${text.includes('?') ? '&' : '?'}prepare=false`;
}

/**
 * The same URL, whose sessions begin with what this server rests on, whatever the database or the role has as its default;
 * what the URL names itself stays. Only for sessions of the database's own: a pooler refuses settings that it does not know.
 */
export function settledUrl(text: string): string {
  const { session } = parseDatabaseUrl(text);
  return withSession(
    text,
    Object.entries(sessionSettings).filter(([name]) => session[name] === undefined),
  );
}

/**
 * As settledUrl, for sessions that run nothing but this server's own statements. Another role may have made functions in a
 * schema that names are looked for in, such as `public`; where they take its arguments better than PostgreSQL's own of that
 * name, they would run as the server's role.
 */
export function ownUrl(text: string): string {
  const settled = settledUrl(text);
  const { session } = parseDatabaseUrl(settled);
  return withSession(
    settled,
    Object.entries(ownNames).filter(([name, value]) => session[name] !== value),
  );
}

/** Of a parameter that is given twice the last one counts. */
function withSession(text: string, settings: readonly (readonly [name: string, value: string])[]): string {
  return settings.reduce(
    (url, [name, value]) => `${url}${url.includes('?') ? '&' : '?'}${name}=${encodeURIComponent(value)}`,
    text,
  );
}

/** Under a stricter isolation writers of the log, of counts and of presence would fail whenever they meet. */
const sessionSettings = {
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
};

const ownNames = { search_path: 'pg_catalog', 'plpgsql.extra_errors': '', 'plpgsql.extra_warnings': '' };

/** Where it leads, without an account. */
export function placeOf({ hosts, socket }: DatabaseUrl): string {
  return socket ?? hosts.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`).join(',');
}

/** The URL as people may read it: no password, no parameters. Hidden whole when it is none. */
export function shownDatabaseUrl(text: string): string {
  try {
    const url = parseDatabaseUrl(text);
    const user = url.user === undefined ? '' : `${encodeURIComponent(url.user)}${url.password ? ':***' : ''}@`;
    const name = encodeURIComponent(url.database ?? '');
    if (url.socket === undefined) return `postgres://${user}${placeOf(url)}/${name}`;
    const folder = url.socket.slice(0, url.socket.lastIndexOf('/'));
    return `postgres://${user}/${name}?host=${folder}&port=${url.hosts[0]?.port}`;
  } catch {
    return '***';
  }
}

function fail(message: string): never {
  throw new Error(message);
}

function refuseOtherForms(text: string): void {
  if (/^jdbc:/i.test(text)) fail('leave out jdbc:, and write user and password before the host');
  if (/^postgres(?:ql)?\+\w+:/i.test(text)) fail('leave out the driver behind the +: begin with postgres://');
  if (/^prisma(?:\+postgres)?:/i.test(text)) fail('it names a service of Prisma: write the URL of the database itself');
  if (/^\s*\w+\s*=/.test(text)) fail('write it as a URL: postgres://user:password@host:5432/database');
}

function parameters(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const pair of text.split('&').filter((each) => each !== '')) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/.exec(pair) ?? [];
    found.set(decode(name), decode(value));
  }
  return found;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return fail(unencodedFault);
  }
}

function hostsOf(list: string, portList = ''): Pick<DatabaseUrl, 'hosts' | 'socket'> {
  const names = list.split(',');
  const ports = portList === '' ? [] : portList.split(',');
  if (ports.length > 1 && ports.length !== names.length) fail('there are not as many ports as hosts');
  const hosts = names.map((name, index) => hostOf(name, ports[index] ?? ports[0]));
  const [first] = hosts;
  if (!hosts.some(({ host }) => host.startsWith('/'))) return { hosts, socket: undefined };
  if (hosts.length > 1 || first === undefined) fail('a Unix socket cannot be one of several hosts: name it alone');
  return { hosts: [{ host: first.host, port: first.port }], socket: `${first.host}/.s.PGSQL.${first.port}` };
}

function hostOf(text: string, port: string | undefined): DatabaseHost {
  // A folder may hold colons.
  const isFolder = text.startsWith('/');
  const [, address, name = '', own] = isFolder ? ['', undefined, text] : (hostForm.exec(text) ?? fail(hostFault));
  const host = address ?? decode(name).replace(/(?<=.)\/+$/, '');
  if (!/^(?:\/[^\0]*|[\w.:-]*)$/.test(host)) fail(hostFault);
  const number = own ?? port ?? '5432';
  if (!/^\d{1,5}$/.test(number) || Number(number) > 65_535) fail('a port is not a number from 1 to 65535');
  if (host === '') fail('a host is missing: write its name, or the folder of a socket as ?host=/var/run/postgresql');
  return { host, port: Number(number) };
}

const hostFault =
  'a host is not valid: expected is a name, an IPv4 address, an IPv6 address in brackets, or the folder of a socket with' +
  ' / written as %2F';

function targetOf(text: string | undefined): DatabaseUrl['target'] {
  if (text === undefined || text === 'any') return undefined;
  if (text === 'primary' || text === 'read-write') return text;
  return fail('target_session_attrs must be primary, read-write or any: this server writes to the database');
}

/**
 * The driver cannot bind the password's exchange to the connection's certificate. Where that is required, so that nobody
 * stands in between, the certificate and the host in it are checked instead: that lets nobody in between either.
 */
function tlsMode(mode: string | undefined, binding = 'prefer'): string | undefined {
  if (!['disable', 'prefer', 'require'].includes(binding))
    fail('channel_binding is neither disable, prefer nor require');
  if (binding !== 'require') return mode;
  if (mode === 'disable') fail('channel_binding=require needs TLS: leave out sslmode=disable');
  return 'verify-full';
}

function secondsOf(text: string | undefined): number | undefined {
  if (text === undefined || text === '0') return undefined;
  return /^\d{1,4}$/.test(text) ? Number(text) : fail('connect_timeout is not a number of seconds');
}

function sessionOf(query: ReadonlyMap<string, string>): Record<string, string> {
  const kept: [string, string][] = [];
  for (const [name, value] of query) {
    if (leftOut.has(name)) continue;
    const instead = Object.hasOwn(refused, name) ? refused[name] : undefined;
    if (instead !== undefined) fail(`the parameter ${name} is not taken: ${instead}`);
    if (!/^[a-z_]{1,63}(?:\.[a-z_]{1,63})?$/i.test(name)) fail('a parameter has a name that PostgreSQL cannot have');
    kept.push([name, value]);
  }
  return Object.fromEntries(kept);
}
