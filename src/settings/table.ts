// The one table of settings: name, kind, default and meaning. Reading them, docs/settings.md and the check for mistyped
// names all come from here, so a new setting is one row. An engine brings the rows of its own.

import {
  addressRanges,
  bearerKey,
  databaseUrl,
  matching,
  oneOf,
  origins,
  publicKey,
  secretText,
  seconds,
  setOf,
  share,
  textList,
  truth,
  urlOf,
  wholeNumber,
} from './kinds.ts';
import { syncSetting, type EngineSettings } from './engine-settings.ts';
import { defaulted, optional, type Setting } from './setting.ts';

export const roles = ['ws', 'sse', 'api', 'relay'] as const;
export type Role = (typeof roles)[number];

const kibibyte = 1_024;
const mebibyte = 1_024 * kibibyte;

const firstSettings = {
  nodeEnv: defaulted(
    'NODE_ENV',
    // A misspelled `production` would silently open the server, so nothing else is taken for "not production".
    oneOf(['development', 'test', 'production']),
    'development',
    'In `production` the server does not start without a token key, and logs JSON.',
  ),
  port: defaulted('PORT', wholeNumber(0, 65_535), '3000', 'TCP port; `0` takes a free one.'),
  host: defaulted(
    'HOST',
    matching(/^[A-Za-z0-9.:_-]{1,253}$/, 'an address or host name'),
    '0.0.0.0',
    'Address to listen on.',
  ),
  databaseUrl: optional(
    'DATABASE_URL',
    databaseUrl,
    'an embedded PostgreSQL under `DATA_DIR`',
    'PostgreSQL 13 or newer. The forms of the URL are in [operate.md](operate.md#the-url-of-the-database).',
  ),
  databaseUrlDirect: optional(
    'DATABASE_URL_DIRECT',
    databaseUrl,
    'as `DATABASE_URL`',
    'The same database without a pooler. Set it when `DATABASE_URL` leads to one: the relay and the listener need sessions of their own.',
  ),
};

const furtherSettings = {
  dataDir: defaulted('DATA_DIR', matching(/^[^\0]+$/, 'a path'), '.data', 'Folder of the embedded PostgreSQL.'),
  demoTables: optional(
    'DEMO_TABLES',
    truth,
    'on the embedded database, outside production',
    'Make and watch the tables `posts`, `notifications` and `messages`, where none of that name is.',
  ),
  nodeId: optional(
    'NODE_ID',
    matching(/^[A-Za-z0-9._-]{1,64}$/, '1 to 64 characters of `A-Z a-z 0-9 . _ -`'),
    'random',
    'Name of this node: `node` in `welcome` frames, `server_id` in metrics. Unique in the cluster.',
  ),
  workers: defaulted(
    'WORKERS',
    wholeNumber(1, 64),
    '1',
    'Processes that serve the port together, each a node of its own. `1` is this process alone. More need a `SYNC` that' +
      ' processes can share.',
  ),
  role: defaulted(
    'ROLE',
    setOf(roles),
    roles.join(','),
    'What this process does: WebSocket, event streams, HTTP API, relay.',
  ),
  jwtSecret: optional('JWT_SECRET', secretText, 'no token key', 'Key of HS256, HS384 or HS512 tokens.'),
  jwksUrl: optional(
    'JWKS_URL',
    urlOf('http', 'https'),
    'no token key',
    'Key set that tokens are checked against. The server fetches it every ten minutes, and when a token names a new key.',
  ),
  jwtPublicKey: optional('JWT_PUBLIC_KEY', publicKey, 'no token key', 'Public key that tokens are checked against.'),
  jwtAudience: optional('JWT_AUDIENCE', textList, 'not checked', 'Audiences: a token must name one of them in `aud`.'),
  jwtIssuer: optional('JWT_ISSUER', textList, 'not checked', 'Issuers: a token must name one of them in `iss`.'),
  allowAnonymous: defaulted('ALLOW_ANONYMOUS', truth, 'false', 'Start in production without a token key.'),
  apiKey: optional('API_KEY', bearerKey, 'none', 'Bearer key of server-side calls.'),
  configFile: optional(
    'CONFIG_FILE',
    matching(/^[^\0?#]+$/, 'a path without ? and #'),
    '`realtime.config.ts`',
    'File of the channel rules.',
  ),
  adminKey: optional('ADMIN_KEY', bearerKey, 'none', 'Bearer key of the operator.'),
  allowedOrigins: optional(
    'ALLOWED_ORIGINS',
    origins,
    'any origin; without keys, pages of this machine',
    'Origins whose pages may connect, beside this server’s own. Programs send no origin and may always connect. A token' +
      ' cookie counts only from pages of own and listed origins.',
  ),
  maxConnections: defaulted(
    'MAX_CONNECTIONS',
    wholeNumber(1, 1_000_000),
    // Common limits on open files are 20,000 and more: this leaves room for the database, Redis and HTTP requests.
    '15000',
    'WebSockets and event streams of this process. Each takes one open file: keep `ulimit -n` well above.',
  ),
  maxConnectionsPerUser: defaulted(
    'MAX_CONNECTIONS_PER_USER',
    wholeNumber(0, 1_000_000),
    '1000',
    'Connections of one user over all nodes; `0` sets no limit. Anonymous connections do not count.',
  ),
  maxConnectionsPerAddress: defaulted(
    'MAX_CONNECTIONS_PER_ADDRESS',
    wholeNumber(0, 1_000_000),
    '0',
    'Connections of one client address (of IPv6, of a /64) over all nodes; `0` sets no limit. Behind a proxy, set' +
      ' `TRUSTED_PROXIES` first.',
  ),
  connectsPerSecondPerAddress: defaulted(
    'CONNECTS_PER_SECOND_PER_ADDRESS',
    wholeNumber(0, 1_000_000),
    '0',
    'Attempts to connect of one client address over all nodes; `0` sets no limit. A burst of 5 seconds’ worth passes at' +
      ' once.',
  ),
  authFailuresPerMinutePerAddress: defaulted(
    'AUTH_FAILURES_PER_MINUTE_PER_ADDRESS',
    wholeNumber(0, 1_000_000),
    '0',
    'Failed tokens and keys of one client address; after that many it is refused, even with a good token, until the' +
      ' minute is over. `0` sets no limit.',
  ),
  trustedProxies: optional(
    'TRUSTED_PROXIES',
    addressRanges,
    'none',
    'Proxies whose `X-Forwarded-For` counts; from anyone else the header is ignored. `loopback` and `private` stand for' +
      ' those ranges.',
  ),
  maxMessageBytes: defaulted(
    'MAX_MESSAGE_BYTES',
    wholeNumber(kibibyte, 16 * mebibyte),
    String(64 * kibibyte),
    'Largest data of one publication by a client or the HTTP API. A WebSocket frame may have 8 KiB more.',
  ),
  maxRowBytes: defaulted(
    'MAX_ROW_BYTES',
    wholeNumber(kibibyte, 256 * mebibyte),
    String(16 * mebibyte),
    'Largest JSON of a table change, or of `realtime.send`. A larger one is parked, and its channels get a `gap`.',
  ),
  maxChannelsPerConnection: defaulted(
    'MAX_CHANNELS_PER_CONNECTION',
    wholeNumber(1, 100_000),
    '1000',
    'Subscriptions of one connection.',
  ),
  presenceDataBytes: defaulted(
    'PRESENCE_DATA_BYTES',
    wholeNumber(16, 64 * kibibyte),
    String(4 * kibibyte),
    'Bytes of JSON with which one connection may enter the presence of a channel.',
  ),
  presenceGrace: defaulted(
    'PRESENCE_GRACE',
    seconds(0, 300),
    '5',
    'Seconds for which a user whose connection is gone stays a member of its channels: who comes back within them, on' +
      ' any node, neither leaves nor joins. `0` tells at once.',
  ),
  maxBufferedBytes: defaulted(
    'MAX_BUFFERED_BYTES',
    wholeNumber(64 * kibibyte, 1_024 * mebibyte),
    // A WebSocket's is memory of its own, which grows by doubling: the server stands still while it copies.
    String(4 * mebibyte),
    'Bytes that may wait for one slow reader. Past it the server cuts the reader off, and it recovers by position.',
  ),
  maxBufferedBytesTotal: optional(
    'MAX_BUFFERED_BYTES_TOTAL',
    wholeNumber(mebibyte, 1_024 * 1_024 * mebibyte),
    'a quarter of the memory',
    'Bytes that may wait for all slow readers together. Past it the server cuts off those that lag the furthest.',
  ),
  holdMax: defaulted(
    'HOLD_MAX',
    wholeNumber(1, 1_000_000),
    '1000',
    'Live publications held back per subscription while it recovers. More are read from history again.',
  ),
  keptBytesMax: defaulted(
    'KEPT_BYTES_MAX',
    wholeNumber(0, 1_024 * 1_024 * mebibyte),
    String(64 * mebibyte),
    'Bytes of publications that this process keeps of channels with subscribers here. Clients who come back are served' +
      ' from them. The channels that were used longest ago go first. `0` keeps nothing.',
  ),
  snapshotTimeout: defaulted(
    'SNAPSHOT_TIMEOUT',
    seconds(1, 60),
    '5',
    'Seconds that a query of a rule’s `snapshot` may take; its subscribers get `unavailable` then.',
  ),
  snapshotRowsMax: defaulted(
    'SNAPSHOT_ROWS_MAX',
    wholeNumber(1, 1_000_000),
    '10000',
    'Rows of one snapshot. Of a query that has more, its subscribers get `unavailable`.',
  ),
  snapshotBytesMax: defaulted(
    'SNAPSHOT_BYTES_MAX',
    wholeNumber(kibibyte, 256 * mebibyte),
    String(8 * mebibyte),
    'Bytes of the rows of one snapshot as JSON. Of a query that has more, its subscribers get `unavailable`.',
  ),
  hooksUrl: optional(
    'HOOKS_URL',
    urlOf('http', 'https'),
    'no hooks',
    'Endpoint that is told of channels, members and users that come and go: docs/hooks.md.',
  ),
  hooksSecret: optional('HOOKS_SECRET', secretText, 'the API key', 'Signs the requests to `HOOKS_URL`.'),
  hooksTimeout: defaulted(
    'HOOKS_TIMEOUT',
    seconds(1, 60),
    '10',
    'Seconds that the endpoint of `HOOKS_URL` has to answer.',
  ),
  hooksMax: defaulted(
    'HOOKS_MAX',
    wholeNumber(1, 10_000_000),
    '100000',
    'Events that wait in the database while the endpoint is away. Past it the oldest are dropped, and counted.',
  ),
  requestTimeout: defaulted(
    'REQUEST_TIMEOUT',
    // The runtime counts in steps of four seconds, up to 255.
    wholeNumber(2, 240),
    '30',
    'Seconds that a body, or a connection’s second and later heads, may take to arrive; also the pause allowed between' +
      ' two requests. A connection’s first head always has about 12 seconds.',
  ),
  rateLimitPerMinute: defaulted(
    'RATE_LIMIT_PER_MINUTE',
    wholeNumber(0, 1_000_000_000),
    '100',
    'Messages and queries (`publish`, `history`, `presence`) per user and minute over all nodes; `0` sets no limit.' +
      ' Each anonymous connection has its own allowance.',
  ),
  subscribesPerMinute: defaulted(
    'SUBSCRIBES_PER_MINUTE',
    wholeNumber(0, 1_000_000_000),
    '10000',
    'Channels that a user subscribes to per minute over all nodes, those of event streams and of `?channels=` among' +
      ' them; `0` sets no limit. Each anonymous connection has its own allowance.',
  ),
  heartbeat: defaulted(
    'HEARTBEAT',
    seconds(1, 300),
    '24',
    'Seconds between pings to a quiet WebSocket. Rounded up to a multiple of 4, at least 8.',
  ),
  sseRetry: defaulted(
    'SSE_RETRY',
    wholeNumber(100, 600_000),
    '2000',
    'Milliseconds after which an EventSource reconnects. Each gets its own value, up to half as much more.',
  ),
  sseCompression: defaulted(
    'SSE_COMPRESSION',
    truth,
    'false',
    'Compress event streams for clients that accept gzip, as every browser does. Each chunk is compressed once for all' +
      ' streams with the same channels. Leave it off where a proxy compresses them.',
  ),
  wsCompression: defaulted(
    'WS_COMPRESSION',
    truth,
    'false',
    'Compress large messages for WebSocket clients that ask for it by `?deflate=1`, as ours does with `compression: true`.' +
      ' Each message is compressed once for all of them.',
  ),
  shutdownTimeout: defaulted(
    'SHUTDOWN_TIMEOUT',
    seconds(0, 86_400),
    '1800',
    'Seconds after which a shutdown closes whatever is left: the very last moment.',
  ),
  drainWindow: defaulted(
    'DRAIN_WINDOW',
    seconds(0, 86_400),
    '20',
    'Seconds over which a shutdown closes its connections. Each client receives its own moment to reconnect elsewhere, and' +
      ' is closed then if it has not left. `0` leaves the moment to the clients, until `SHUTDOWN_TIMEOUT`.',
  ),
  broadcastInterval: defaulted(
    'BROADCAST_INTERVAL',
    seconds(0, 86_400),
    '10',
    'Seconds between reports on the channel `$system`; `0` turns them off.',
  ),
  logLevel: defaulted(
    'LOG_LEVEL',
    oneOf(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    'info',
    'The lowest level that is logged.',
  ),
  tracesEndpoint: optional(
    'OTEL_EXPORTER_OTLP_ENDPOINT',
    urlOf('http', 'https'),
    'no traces',
    'Base of the URL of an OpenTelemetry receiver, such as `http://collector:4318`: traces go to `/v1/traces` there.' +
      ' [tracing.md](tracing.md) says what they show.',
  ),
  tracesService: defaulted(
    'OTEL_SERVICE_NAME',
    matching(/^[^\0]{1,128}$/, 'a name of 1 to 128 characters'),
    'sobranie',
    'Name of this server in traces.',
  ),
  tracesShare: defaulted(
    'OTEL_TRACES_SAMPLER_ARG',
    share,
    '1',
    'Share of the numbered publications that is traced: `1` is all, `0.01` every hundredth. All nodes choose the same ones.',
  ),
  logFormat: optional(
    'LOG_FORMAT',
    oneOf(['json', 'pretty']),
    '`json` in production, else `pretty`',
    '`json` writes one object per line, `pretty` lines for people.',
  ),
};

/** What every server has, whatever its engine. */
export const settingsByKey = { ...firstSettings, ...furtherSettings };

/** The rows in the order in which people should read them. */
export function allSettings(engines: readonly EngineSettings[]): readonly Setting<unknown>[] {
  return [
    ...Object.values(firstSettings),
    syncSetting(engines),
    ...engines.flatMap(({ settings }) => Object.values(settings)),
    ...Object.values(furtherSettings),
  ];
}

/** The list in docs/settings.md, in Markdown: a heading for each, so that other documents can link to it. */
export function settingsList(engines: readonly EngineSettings[]): string {
  const entries = allSettings(engines).map((setting) => {
    const standard = setting.default === undefined ? (setting.unset ?? '') : `\`${setting.default}\``;
    return `## \`${setting.name}\`\n\n${setting.doc}\n\nDefault: ${standard}. Allowed: ${setting.kind.allowed}.`;
  });
  return entries.join('\n\n');
}
