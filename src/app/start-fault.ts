// Why a start failed, for the person who reads the terminal or the log: what was tried, the cause in plain words, and
// what mends it. Host, user and database are named here, a password never.

import { placeOf, parseDatabaseUrl } from '../database/url.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { urlNameOf, usesTls, type EngineSettings } from '../settings/engine-settings.ts';
import type { Settings } from '../settings/settings.ts';
import { isPassingFailure } from '../time/patiently.ts';
import { knownCode, plainCause } from './causes.ts';

/** Its message says all that there is to say. */
export class StartFault extends Error {
  constructor(message: string, cause: unknown) {
    super(message, { cause });
    this.name = 'StartFault';
  }
}

export type DatabaseSetting = 'DATABASE_URL' | 'DATABASE_URL_DIRECT';

interface Target {
  /** The setting that leads there. */
  readonly setting: string;
  readonly what: string;
  readonly host: string;
  readonly user: string;
  readonly database: string;
  /** The setting or variable that names a private authority. */
  readonly authority: string;
  /** How the URL would begin with TLS; undefined where it does, or where that is no matter of its beginning. */
  readonly tlsScheme?: string | undefined;
  readonly usesTls?: boolean | undefined;
}

const untrusted = ({ authority, what, setting }: Target): string =>
  `name the authority that signed it: ${authority}=/path/to/ca.pem (a file in the PEM format)` +
  (what === 'PostgreSQL' ? `, or ?sslrootcert=/path/to/ca.pem in ${setting}` : '');

const withoutTls = ({ setting, what }: Target): string =>
  `begin ${setting} without TLS, or let it lead to the port at which ${what} speaks TLS`;

const topicRights = ({ user }: Target): string =>
  `let the user "${user}" create, describe, read and write the topics whose names begin with "sobranie-"`;

/** A server of TLS ends a connection that begins otherwise, and says nothing. */
const lost = ({ setting, tlsScheme }: Target): string | undefined =>
  tlsScheme && `if it speaks TLS at that port, begin ${setting} with ${tlsScheme}; else its own log may say more`;

const mends: Readonly<Record<string, (target: Target) => string | undefined>> = {
  ECONNRESET: lost,
  EPIPE: lost,
  ECONNREFUSED: ({ what, setting }) => `start ${what}, or correct host and port in ${setting}`,
  ENOTFOUND: ({ setting }) => `correct the host name in ${setting}`,
  EAI_AGAIN: ({ setting }) => `correct the host name in ${setting}, or mend the name service of this machine`,
  ETIMEDOUT: ({ setting }) => `correct ${setting}, or open the firewall between this machine and that one`,
  CONNECT_TIMEOUT: ({ setting }) => `correct ${setting}, or open the firewall between this machine and that one`,
  EHOSTUNREACH: ({ setting }) => `correct ${setting}, or mend the network`,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  ERR_TLS_CERT_ALTNAME_INVALID: ({ setting }) => `write the host in ${setting} as the certificate names it`,
  CERT_HAS_EXPIRED: () => 'renew the certificate',
  '28P01': ({ user, setting }) => `correct the password of "${user}" in ${setting}`,
  '28000': ({ user, database }) =>
    `create the role "${user}", or let it into "${database}" in pg_hba.conf, with TLS if that asks for it (?sslmode=require)`,
  '3D000': ({ database }) => `create it: CREATE DATABASE "${database}"`,
  '42501': ({ user, database }) =>
    `run as a superuser, connected to "${database}": ` +
    `GRANT CREATE ON DATABASE "${database}" TO "${user}"; GRANT CREATE ON SCHEMA public TO "${user}";`,
  '25006': ({ setting }) => `let ${setting} lead to the primary, or end default_transaction_read_only`,
  '42704': ({ setting }) => `leave out of ${setting} the parameter that is no setting of PostgreSQL`,
  '08P01': ({ setting }) => `correct ${setting}; a pooler takes no settings of PostgreSQL in it`,
  TLS_REFUSED: ({ setting }) => `turn TLS on there (ssl = on), or leave sslmode out of ${setting}`,
  WRONG_VERSION_NUMBER: withoutTls,
  NO_TLS: withoutTls,
  TLS_CUT: withoutTls,
  ENOENT: ({ what, setting }) =>
    `start ${what}, or name in ${setting} the folder that unix_socket_directories names there`,
  POOLER_KEEPS_NO_TRANSACTION: () => 'set pool_mode = transaction in the pooler',
  POOLER_KEEPS_NO_SESSION: ({ setting }) =>
    setting === 'DATABASE_URL'
      ? 'set DATABASE_URL_DIRECT to the address of the database itself. DATABASE_URL may go on leading to a pooler in ' +
        'transaction or session mode'
      : `let ${setting} lead to the database itself, or set pool_mode = session in the pooler`,
  ANOTHER_DATABASE: () => 'correct host, port and name of the database in DATABASE_URL or in DATABASE_URL_DIRECT',
  '53300': () => 'raise max_connections, or lower the number of nodes: each opens about ten sessions',
  NOAUTH: ({ setting }) => `write the password into ${setting}: redis://:password@host:6379`,
  WRONGPASS: ({ setting }) => `correct user and password in ${setting}`,
  NOPERM: ({ user }) => `give the user "${user}" the commands, keys and channels that docs/operate.md lists`,
  NATS_LOGIN: ({ setting }) =>
    `correct user and password, or the token, in ${setting}, or the file of NATS_CREDENTIALS`,
  RABBITMQ_LOGIN: ({ setting }) => `correct user and password in ${setting}`,
  RABBITMQ_RIGHT: ({ user }) =>
    `let the user "${user}" configure, write and read the exchanges and queues whose names begin with "sobranie"`,
  RABBITMQ_VHOST: ({ setting }) => `correct the virtual host, the path of ${setting}, or let the user into it`,
  SASL_AUTHENTICATION_FAILED: ({ setting }) => `correct user and password in ${setting}`,
  UNSUPPORTED_SASL_MECHANISM: ({ setting }) => `write another one into ${setting}, such as ?sasl=scram-sha-512`,
  TOPIC_AUTHORIZATION_FAILED: topicRights,
  CLUSTER_AUTHORIZATION_FAILED: topicRights,
  READONLY: ({ setting }) => `let ${setting} lead to the master, or to the Sentinels: redis+sentinel://…`,
};

/** What a failure of the database at the start becomes: a `StartFault` where its cause is known. */
export function databaseFault(
  error: unknown,
  { databaseUrlDirect, databaseUrl }: Settings,
  setting: DatabaseSetting,
): unknown {
  // The migration's own words.
  if (error instanceof RealtimeError && error.code === 'internal') return new StartFault(error.message, error);
  const url = setting === 'DATABASE_URL' ? databaseUrl : databaseUrlDirect;
  if (url === undefined) return error;
  const parsed = parseDatabaseUrl(url);
  const { user = 'postgres', database = user } = parsed;
  return faultOf(error, {
    setting,
    what: 'PostgreSQL',
    host: placeOf(parsed),
    user,
    database,
    authority: 'NODE_EXTRA_CA_CERTS',
  });
}

/** The same of the sync layer's own server. Of an engine without one the error stays as it is. */
export function engineFault(error: unknown, { sync, engine }: Settings, engines: readonly EngineSettings[]): unknown {
  const row = engines.find(({ name }) => name === sync);
  const setting = row && urlNameOf(row);
  const url = row?.url === undefined ? undefined : engine[row.url];
  if (row === undefined || setting === undefined || typeof url !== 'string') return error;
  const [, account = '', host = ''] = /^[a-z+]+:\/\/(?:([^@]*)@)?([^/?]*)/.exec(url) ?? [];
  const user = account.includes(':') ? decodeURIComponent(account.split(':', 1)[0] ?? '') || 'default' : 'default';
  const what = row.title ?? row.name;
  const authority = row.settings['tlsCa']?.name ?? 'NODE_EXTRA_CA_CERTS';
  const isTls = usesTls(row, url);
  const tlsScheme = isTls ? undefined : row.tlsScheme;
  return faultOf(error, { setting, what, host, user, database: '', authority, tlsScheme, usesTls: isTls });
}

function faultOf(error: unknown, target: Target): unknown {
  const code = knownCode(error);
  const cause = plainCause(error);
  if (cause === undefined) return error;
  // One code stands for what lasts and for what passes: a pooler names its own.
  const isSettled = code === '08P01' && isPassingFailure(error);
  const known = code === undefined || isSettled ? undefined : mends[code]?.(target);
  // A server that speaks no TLS waits for the rest of what it takes for a command.
  const isSilent = code === undefined && target.usesTls === true;
  const mend = known ?? (isSilent ? `if it speaks no TLS at that port, ${withoutTls(target)}` : undefined);
  const advice = mend === undefined ? '' : `\n  What to do: ${mend}`;
  return new StartFault(
    `${target.what} at ${target.host} (${target.setting}): ${cause}.${detailOf(error)}${advice}`,
    error,
  );
}

/** PostgreSQL names what it missed: its own sentence helps, and holds no secret. */
function detailOf(error: unknown): string {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { severity_local: severity } = at as { severity_local?: unknown };
    if (typeof severity === 'string') return `\n  PostgreSQL said: ${at.message}`;
  }
  return '';
}
