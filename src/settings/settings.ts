// Reads the settings from the environment: every fault at once, or a value for every setting. Opens no more than files
// that a setting names, and connects to nothing; what the values mean to each part is that part's affair.

import { similarName } from './similar.ts';
import { allSettings, settingsByKey, type Role, type Setting } from './table.ts';
import { tokenFaults, tokenWarnings } from './tokens.ts';

export type { Role } from './table.ts';

type SettingsByKey = typeof settingsByKey;
type ValueOf<S> = S extends Setting<infer T> ? T : never;
type ReadValues = { readonly [Key in keyof SettingsByKey]: ValueOf<SettingsByKey[Key]> };

export type SyncName = NonNullable<ReadValues['sync']>;
export type LogFormat = NonNullable<ReadValues['logFormat']>;

/** The settings in force. URLs hold passwords: show them through `redactUrl` only. */
export interface Settings extends Omit<ReadValues, 'sync' | 'nodeId' | 'logFormat'> {
  readonly production: boolean;
  readonly sync: SyncName;
  readonly nodeId: string;
  /** Somebody chose `nodeId`, who may have chosen it twice. */
  readonly nodeIdGiven: boolean;
  readonly logFormat: LogFormat;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Everything that is wrong with the settings, one sentence per fault. */
export class SettingsError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    const count = faults.length === 1 ? 'A setting is' : `${faults.length} settings are`;
    super(`${count} wrong:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`);
    this.name = 'SettingsError';
    this.faults = faults;
  }
}

/** @throws SettingsError with every fault that was found. An empty variable counts as unset. */
export function readSettings(env: Environment): Settings {
  const faults: string[] = [];
  const values = readValues(env, faults);
  const sync = values.sync ?? (values.redisUrl === undefined ? 'postgres' : 'redis');
  faults.push(...relationFaults(values, sync, (name) => isSet(env, name)), ...misspelledNames(env));
  if (faults.length > 0) throw new SettingsError(faults);
  const production = values.nodeEnv === 'production';
  return {
    ...values,
    production,
    sync,
    nodeId: values.nodeId ?? randomNodeId(),
    nodeIdGiven: values.nodeId !== undefined,
    logFormat: values.logFormat ?? (production ? 'json' : 'pretty'),
  };
}

/** What an operator should know about settings that are allowed but open a door; start-up says it loudly. */
export function settingsWarnings(settings: Settings): string[] {
  const warnings: string[] = [];
  if (settings.jwtSecret === undefined && settings.jwksUrl === undefined && settings.jwtPublicKey === undefined) {
    warnings.push(
      'No token key is set (JWT_SECRET, JWKS_URL or JWT_PUBLIC_KEY): everyone is anonymous and may do everything' +
        ' but publish to channels that begin with $.',
    );
  }
  if (settings.apiKey === undefined && !settings.production) {
    warnings.push('API_KEY is not set: server-side calls are open to everyone, tickets for any user among them.');
  }
  warnings.push(...tokenWarnings(settings));
  if (settings.production && settings.databaseUrl === undefined) {
    warnings.push('DATABASE_URL is not set: this production server keeps its data in an embedded PostgreSQL.');
  }
  if (limitsAddresses(settings) && settings.trustedProxies === undefined) {
    warnings.push(
      'Addresses are limited and TRUSTED_PROXIES is not set: behind a proxy, all of its clients would count as one.',
    );
  }
  return warnings;
}

/** Whether anything is counted by address: if not, nobody's is looked at. */
export function limitsAddresses(settings: Settings): boolean {
  const { maxConnectionsPerAddress, connectsPerSecondPerAddress, authFailuresPerMinutePerAddress } = settings;
  return maxConnectionsPerAddress + connectsPerSecondPerAddress + authFailuresPerMinutePerAddress > 0;
}

function readValues(env: Environment, faults: string[]): ReadValues {
  const entries = Object.entries<Setting<unknown>>(settingsByKey);
  const values = Object.fromEntries(entries.map(([key, setting]) => [key, readValue(setting, env, faults)]));
  // The table's keys and kinds are what both this object and its type are made of.
  return values as unknown as ReadValues;
}

function isSet(env: Environment, name: string): boolean {
  return env[name] !== undefined && env[name] !== '';
}

/** A faulty value is read as the default, so that one fault does not call forth others about relations. */
function readValue(setting: Setting<unknown>, env: Environment, faults: string[]): unknown {
  const { name, kind } = setting;
  const given = env[name];
  if (given !== undefined && given !== '') {
    const value = kind.parse(given);
    if (value !== undefined) return value;
    const shown = kind.show(given);
    const why = kind.why?.(given);
    faults.push(
      `${name}: ${shown === undefined ? 'the value (not shown)' : `"${shown}"`} is not ${kind.allowed}` +
        (why === undefined ? '' : `: ${why}`),
    );
  }
  return setting.default === undefined ? undefined : kind.parse(setting.default);
}

/** Leaves room for `-64`. */
const workerNodeIdLengthMax = 61;

const tokenKeys = ['JWT_SECRET', 'JWKS_URL', 'JWT_PUBLIC_KEY'];

/** Asks what was given rather than what was read: a key that is set and faulty is still set. */
function relationFaults(values: ReadValues, sync: SyncName, given: (name: string) => boolean): string[] {
  const faults: string[] = [];
  const keys = tokenKeys.filter(given);
  if (keys.length > 1) {
    faults.push(`${keys.join(', ')}: only one of JWT_SECRET, JWKS_URL and JWT_PUBLIC_KEY may be set`);
  }
  if (values.nodeEnv === 'production' && keys.length === 0 && !values.allowAnonymous) {
    faults.push(
      'NODE_ENV=production needs one of JWT_SECRET, JWKS_URL and JWT_PUBLIC_KEY, or ALLOW_ANONYMOUS=true to let' +
        ' everyone in',
    );
  }
  faults.push(...tokenFaults({ ...values, production: values.nodeEnv === 'production' }, keys.length > 0));
  if (sync === 'redis' && !given('REDIS_URL')) faults.push('SYNC=redis needs REDIS_URL');
  if (values.redisTlsCa !== undefined && !values.redisUrl?.startsWith('rediss')) {
    faults.push('REDIS_TLS_CA needs a REDIS_URL with TLS: rediss://, rediss+cluster:// or rediss+sentinel://');
  }
  if (given('DATABASE_URL_DIRECT') && !given('DATABASE_URL')) {
    faults.push('DATABASE_URL_DIRECT needs DATABASE_URL: it is another way to the same database');
  }
  if (sync === 'memory' && isRelayAlone(values.role)) {
    faults.push('SYNC=memory with ROLE=relay: changes would leave the outbox and reach nobody');
  }
  if (values.workers > 1 && sync === 'memory') {
    faults.push(`WORKERS=${values.workers} with SYNC=memory: the workers would not hear of each other's publications`);
  }
  if (values.workers > 1 && (values.nodeId?.length ?? 0) > workerNodeIdLengthMax) {
    faults.push(
      `NODE_ID: with WORKERS it may have ${workerNodeIdLengthMax} characters, since each worker adds its own`,
    );
  }
  if (values.maxMessageBytes > values.maxBufferedBytes) {
    faults.push(
      `MAX_MESSAGE_BYTES (${values.maxMessageBytes}) is more than MAX_BUFFERED_BYTES (${values.maxBufferedBytes}):` +
        ' one message would cut its readers off',
    );
  }
  return faults;
}

function isRelayAlone(role: ReadonlySet<Role>): boolean {
  return role.has('relay') && !role.has('ws') && !role.has('sse');
}

function misspelledNames(env: Environment): string[] {
  const known = allSettings.map((setting) => setting.name);
  return Object.keys(env).flatMap((name) => {
    if (known.includes(name) || !isSet(env, name)) return [];
    const meant = similarName(name, known);
    return meant === undefined ? [] : [`${name} is not a setting; did you mean ${meant}?`];
  });
}

const nodeIdAlphabet = 'abcdefghijklmnopqrstuvwxyz0123456789';

function randomNodeId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => nodeIdAlphabet[byte % nodeIdAlphabet.length]).join('');
}
