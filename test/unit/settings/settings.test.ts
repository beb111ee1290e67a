// Settings: what is read, what is refused, and that a refusal names everything at once and nothing secret.

import { describe, expect, test } from 'bun:test';
import { createServer, type AddressInfo } from 'node:net';
import { engines } from '../../../src/app/engines.ts';
import { listenFault } from '../../../src/app/listen-fault.ts';
import { createLogger } from '../../../src/app/logger.ts';
import { redactText, redactUrl } from '../../../src/settings/redact.ts';
import { slipsBetween } from '../../../src/settings/similar.ts';
import { allSettings, settingsList } from '../../../src/settings/table.ts';
import { SettingsError, settingsWarnings } from '../../../src/settings/settings.ts';
import { claimPort } from '../../../src/workers/port.ts';
import { faultsOf, settingsOf } from '../../support/settings.ts';

const pem =
  '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----';

describe('readSettings', () => {
  test('an empty environment gives the defaults', () => {
    const settings = settingsOf({});
    expect(settings).toMatchObject({
      nodeEnv: 'development',
      production: false,
      port: 3_000,
      host: '0.0.0.0',
      sync: 'postgres',
      databaseUrl: undefined,
      dataDir: '.data',
      maxMessageBytes: 65_536,
      rateLimitPerMinute: 100,
      shutdownTimeout: 1_800,
      broadcastInterval: 10,
      logLevel: 'info',
      logFormat: 'pretty',
      allowAnonymous: false,
    });
    expect([...settings.role]).toEqual(['ws', 'sse', 'api', 'relay']);
    expect(settings.nodeId).toMatch(/^[a-z0-9]{8}$/);
    expect(settingsOf({}).nodeId).not.toBe(settings.nodeId);
  });

  test('every default passes its own check', () => {
    for (const setting of allSettings(engines)) {
      if (setting.default !== undefined) expect(setting.kind.parse(setting.default)).toBeDefined();
    }
  });

  test('an empty variable is unset', () => {
    const empty = Object.fromEntries(allSettings(engines).map(({ name }) => [name, '']));
    expect({ ...settingsOf(empty), nodeId: '' }).toEqual({ ...settingsOf({}), nodeId: '' });
  });

  test('SYNC follows REDIS_URL unless it is set', () => {
    expect(settingsOf({ REDIS_URL: 'redis://127.0.0.1' }).sync).toBe('redis');
    expect(settingsOf({ REDIS_URL: 'redis://127.0.0.1', SYNC: 'postgres' }).sync).toBe('postgres');
    expect(settingsOf({ SYNC: 'memory' }).sync).toBe('memory');
  });

  test('lists are read with blanks and any case of origin', () => {
    expect([...settingsOf({ ROLE: 'ws, relay' }).role]).toEqual(['ws', 'relay']);
    const { allowedOrigins } = settingsOf({
      ALLOWED_ORIGINS: 'https://App.example.com, http://localhost:5173',
    });
    expect(allowedOrigins).toEqual(['https://app.example.com', 'http://localhost:5173']);
  });

  test('a public key may carry its line breaks as \\n', () => {
    expect(settingsOf({ JWT_PUBLIC_KEY: pem.replaceAll('\n', '\\n') }).jwtPublicKey).toBe(pem);
  });

  test('logs are JSON in production', () => {
    const settings = settingsOf({ NODE_ENV: 'production', JWT_SECRET: 'x' });
    expect(settings).toMatchObject({ production: true, logFormat: 'json' });
  });

  const refused: [string, Record<string, string>][] = [
    ['PORT', { PORT: '65536' }],
    ['PORT', { PORT: '3e3' }],
    ['PORT', { PORT: ' 3000' }],
    ['HOST', { HOST: 'http://x/' }],
    ['NODE_ENV', { NODE_ENV: 'prod' }],
    ['SYNC', { SYNC: 'pulsar' }],
    ['ROLE', { ROLE: 'ws,web' }],
    ['ROLE', { ROLE: ',' }],
    ['NODE_ID', { NODE_ID: 'a b' }],
    ['DATABASE_URL', { DATABASE_URL: 'mysql://127.0.0.1/x' }],
    ['REDIS_URL', { REDIS_URL: '127.0.0.1:6379' }],
    ['JWKS_URL', { JWKS_URL: 'keys.json' }],
    ['JWT_PUBLIC_KEY', { JWT_PUBLIC_KEY: 'ssh-rsa AAAA' }],
    ['API_KEY', { API_KEY: 'two words' }],
    ['JWT_SECRET', { JWT_SECRET: ' \n' }],
    ['ALLOWED_ORIGINS', { ALLOWED_ORIGINS: 'https://a.example/path' }],
    // Each of these was taken: the first allowed no page, the second one all of them.
    ['ALLOWED_ORIGINS', { ALLOWED_ORIGINS: 'https://*.example.com' }],
    ['ALLOWED_ORIGINS', { ALLOWED_ORIGINS: '*, https://a.example' }],
    ['SHUTDOWN_TIMEOUT', { SHUTDOWN_TIMEOUT: '-1' }],
    ['BROADCAST_INTERVAL', { BROADCAST_INTERVAL: '10s' }],
    ['LOG_LEVEL', { LOG_LEVEL: 'verbose' }],
    ['LOG_FORMAT', { LOG_FORMAT: 'xml' }],
    ['ALLOW_ANONYMOUS', { ALLOW_ANONYMOUS: 'maybe' }],
  ];
  test.each(refused)('%s is refused: %j', (name, env) => {
    const faults = faultsOf(env);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toStartWith(`${name}: `);
  });

  const relations: [string, Record<string, string>][] = [
    ['SYNC=redis without REDIS_URL', { SYNC: 'redis' }],
    ['keep only one of them', { JWT_SECRET: 'x', JWKS_URL: 'https://id.example/keys' }],
    ['NODE_ENV=production without a token key', { NODE_ENV: 'production' }],
    ['DATABASE_URL_DIRECT without DATABASE_URL', { DATABASE_URL_DIRECT: 'postgres://127.0.0.1/x' }],
    ['SYNC=memory with ROLE=relay', { SYNC: 'memory', ROLE: 'relay' }],
    ['NODE_ID has 62 characters: with WORKERS it may have 61', { NODE_ID: 'n'.repeat(62), WORKERS: '2' }],
    ['MAX_MESSAGE_BYTES', { MAX_MESSAGE_BYTES: '1048576', MAX_BUFFERED_BYTES: '65536' }],
  ];
  test.each(relations)('settings that contradict each other: %s', (text, env) => {
    const faults = faultsOf(env);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toContain(text);
  });

  test('production without a token key starts when anonymous use is allowed', () => {
    expect(faultsOf({ NODE_ENV: 'production', ALLOW_ANONYMOUS: 'true' })).toEqual([]);
  });

  test('every fault is in one list, and none shows a secret', () => {
    const env = {
      PORT: 'x',
      SYNC: 'redis',
      API_KEY: 'hunter two',
      DATABASE_URL: 'mysql://app:hunter2@db/x',
      REDIS_URI: 'redis://:hunter2@cache',
      JWT_SECRET: 'hunter2',
      JWT_PUBLIC_KEY: 'hunter2',
    };
    const faults = faultsOf(env);
    expect(faults.map((fault) => fault.split(/[: =,]/)[0])).toEqual([
      'PORT',
      'DATABASE_URL',
      'JWT_PUBLIC_KEY',
      'API_KEY',
      'JWT_SECRET',
      'SYNC',
      'REDIS_URI',
    ]);
    expect(faults.join('\n')).not.toContain('hunter');
    expect(new SettingsError(faults).message).toStartWith('7 settings are wrong:\n  - PORT: "x" is not');
  });
});

describe('mistyped names', () => {
  const slips = {
    PROT: 'PORT',
    port: 'PORT',
    HOSTT: 'HOST',
    JWT_SECERT: 'JWT_SECRET',
    JWT_SECERTS: 'JWT_SECRET',
    REDIS_URI: 'REDIS_URL',
    RATE_LIMIT_PER_MIN: 'RATE_LIMIT_PER_MINUTE',
    BRODCAST_INTERVALL: 'BROADCAST_INTERVAL',
    // A unit more is many letters more, so these once counted as names of other programs, and had no effect.
    SHUTDOWN_TIMEOUT_SECONDS: 'SHUTDOWN_TIMEOUT',
    DRAIN_WINDOW_MS: 'DRAIN_WINDOW',
    heartbeat_seconds: 'HEARTBEAT',
    MAX_BUFFERED_BYTES_MB: 'MAX_BUFFERED_BYTES',
  };
  test.each(Object.entries(slips))('%s is taken for %s', (name, meant) => {
    expect(faultsOf({ [name]: '1' })).toEqual([`${name} is not a setting; did you mean ${meant}?`]);
  });

  test('names of other programs are left alone', () => {
    const names = ['HOME', 'HOSTNAME', 'PGHOST', 'PGPORT', 'NODE_OPTIONS', 'NODE_IP', 'APP_KEY', 'HTTP_PORT', 'LANG'];
    const more = [
      'KUBERNETES_PORT',
      'npm_config_port',
      'REDIS_PORT',
      'DATA',
      'CI',
      'LONG',
      'SHLVL',
      'TERM',
      'POOL',
      'SYNC_SECONDS',
    ];
    expect(faultsOf(Object.fromEntries([...names, ...more].map((name) => [name, 'x'])))).toEqual([]);
  });

  test('settings are not taken for each other, nor is this machine refused', () => {
    expect(faultsOf({ NODE_ID: 'a', NODE_ENV: 'test' })).toEqual([]);
    expect(faultsOf(process.env)).toEqual([]);
  });

  test('slips are counted once each', () => {
    expect(slipsBetween('PORT', 'PROT')).toBe(1);
    expect(slipsBetween('PORT', 'PRT')).toBe(1);
    expect(slipsBetween('PORT', 'SPORT')).toBe(1);
    expect(slipsBetween('PORT', 'FORK')).toBe(2);
    expect(slipsBetween('REIDS_URI', 'REDIS_URL')).toBe(2);
    expect(slipsBetween('', 'PORT')).toBe(4);
  });
});

// A file from Windows ends its lines so. The fault read: "info" is not one of `info`, …
test('a line break in a value is shown', () => {
  expect(faultsOf({ LOG_LEVEL: 'info\r' })).toEqual([expect.stringContaining(String.raw`LOG_LEVEL: "info\r" is not`)]);
});

// The runtime's own error ended the start, with a stack and without the name of the setting.
test('where the server cannot listen the setting is named', async () => {
  const { promise, resolve } = Promise.withResolvers<number>();
  const holder = createServer().listen(0, '127.0.0.1', () => resolve((holder.address() as AddressInfo).port));
  const port = await promise;
  // No machine has this name, and no name server is asked for it: a part of it is empty.
  const host = 'a..b';
  const faultOf = (hostname: string, taken: number): unknown => {
    try {
      void Bun.serve({ hostname, port: taken, fetch: () => new Response() }).stop(true);
    } catch (error) {
      return listenFault(error, { host: hostname, port: taken });
    }
    return undefined;
  };
  expect((faultOf('127.0.0.1', port) as SettingsError).faults).toEqual([
    `PORT: ${port} is taken by another program; set another one`,
  ]);
  const strange = [expect.stringContaining(`HOST: the server cannot listen on "${host}"`)];
  expect((faultOf(host, 0) as SettingsError).faults).toEqual(strange);
  expect(await claimPort(host, 0).catch((error: unknown) => (error as SettingsError).faults)).toEqual(strange as never);
  holder.close();
  // Any other fault was told as one of HOST.
  for (const other of [new TypeError('a bug'), Object.assign(new Error('too many open files'), { code: 'EMFILE' })]) {
    expect(listenFault(other, { host: '0.0.0.0', port })).toBe(other);
  }
});

test('warnings name the doors that the settings leave open', () => {
  const open = settingsWarnings(settingsOf({}));
  expect(open.join('\n')).toMatch(/everyone is anonymous[^]*API_KEY is not set/);
  const closed = { JWT_SECRET: 'x'.repeat(32), API_KEY: 'k' };
  expect(settingsWarnings(settingsOf(closed))).toEqual([]);
  const byAddress = { ...closed, CONNECTS_PER_SECOND_PER_ADDRESS: '5' };
  expect(settingsWarnings(settingsOf(byAddress)).join('\n')).toMatch(/TRUSTED_PROXIES is not set/);
  expect(settingsWarnings(settingsOf({ ...byAddress, TRUSTED_PROXIES: 'loopback' }))).toEqual([]);
});

test('the list for people has a heading for each setting', () => {
  const headings = settingsList(engines)
    .split('\n')
    .filter((line) => line.startsWith('#'));
  expect(headings).toEqual(allSettings(engines).map(({ name }) => `## \`${name}\``));
});

describe('secrets in text', () => {
  test('a URL is shown without its password', () => {
    expect(redactUrl('postgres://app:secret@db:5432/x?sslmode=require')).toBe(
      'postgres://app:***@db:5432/x?sslmode=require',
    );
    expect(redactUrl('redis://cache:6379/0')).toBe('redis://cache:6379/0');
    expect(redactUrl('not a url, perhaps secret')).toBe('***');
  });

  test('text keeps everything but credentials', () => {
    expect(redactText('to redis://:p@ss@h/0 failed')).toBe('to redis://:***@h/0 failed');
    expect(redactText('GET /realtime/ws?token=abc.def&channels=a')).toBe('GET /realtime/ws?token=***&channels=a');
    expect(redactText('Authorization: Bearer abc.def')).toBe('Authorization: Bearer ***');
    expect(redactText('http://127.0.0.1:3000/users/@me')).toBe('http://127.0.0.1:3000/users/@me');
  });

  test.each(['json', 'pretty'] as const)('a %s log line holds no secret', (format) => {
    const lines: string[] = [];
    const write = (line: string) => void lines.push(line);
    const log = createLogger({ level: 'info', format, node: 'n1', colors: false, write });
    log.info({ token: 'hunter2', headers: { authorization: 'hunter2' } }, 'to postgres://a:hunter2@b/c');
    log.error({ err: new Error('redis://:hunter2@h') }, 'failed');
    log.debug('unheard');
    expect(lines).toHaveLength(2);
    expect(lines.join('')).not.toContain('hunter2');
    expect(lines[0]).toContain('postgres://a:***@b/c');
    expect(lines[1]).toContain('Error: redis://:***@h');
    if (format === 'json') expect(JSON.parse(lines[0] ?? '')).toMatchObject({ level: 'info', node: 'n1' });
    else expect(lines[0]).toMatch(/^\d\d:\d\d:\d\d\.\d{3} INFO  to /);
  });
});
