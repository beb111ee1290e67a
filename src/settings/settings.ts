// Reads the settings from the environment: a value for every setting, or every fault at once. It opens only files that
// a setting names, and connects to nothing. What a value means, the part that uses it knows.

import { similarName } from './similar.ts';
import { chooseEngine, syncSetting, urlNameOf, type EngineSettings } from './engine-settings.ts';
import type { Setting, SettingsByKey, ValuesOf } from './setting.ts';
import { allSettings, settingsByKey, type Role } from './table.ts';
import { tokenFaults, tokenWarnings } from './tokens.ts';

export type { Role } from './table.ts';

type ReadValues = ValuesOf<typeof settingsByKey>;

export type LogFormat = NonNullable<ReadValues['logFormat']>;

/** The settings in force. URLs hold passwords: show them through `redactUrl` only. */
export interface Settings extends Omit<ReadValues, 'nodeId' | 'logFormat'> {
  readonly production: boolean;
  /** Name of the engine. */
  readonly sync: string;
  /** Values of the engine's own settings. */
  readonly engine: Readonly<Record<string, unknown>>;
  /** Of each engine, by the name of the setting that says where it is: a source may be at one that is not the sync layer. */
  readonly brokers: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly nodeId: string;
  /** NODE_ID is set, so another node may have the same name by mistake; a random one is unique. */
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
export function readSettings(env: Environment, engines: readonly EngineSettings[]): Settings {
  const faults: string[] = [];
  const given = (name: string): boolean => isSet(env, name);
  // The table's keys and kinds are what both this object and its type are made of.
  const values = readValues(settingsByKey, env, faults) as unknown as ReadValues;
  const engineValues = new Map(engines.map((engine) => [engine, readValues(engine.settings, env, faults)]));
  const named = readValue(syncSetting(engines), env, faults);
  const { engine, faults: engineFaults } = chooseEngine(engines, named, given);
  faults.push(...relationFaults(values, engine, given), ...engineFaults);
  faults.push(...misspelledNames(env, engines));
  if (faults.length > 0) throw new SettingsError(faults);
  const production = values.nodeEnv === 'production';
  return {
    ...values,
    production,
    sync: engine.name,
    engine: engineValues.get(engine) ?? {},
    brokers: brokersOf(engineValues),
    nodeId: values.nodeId ?? randomNodeId(),
    nodeIdGiven: values.nodeId !== undefined,
    logFormat: values.logFormat ?? (production ? 'json' : 'pretty'),
  };
}

/** Settings that are allowed but leave a door open, one sentence each. Start-up logs them as warnings. */
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

/** Whether anything is counted by address. Otherwise addresses are not read. */
export function limitsAddresses(settings: Settings): boolean {
  const { maxConnectionsPerAddress, connectsPerSecondPerAddress, authFailuresPerMinutePerAddress } = settings;
  return maxConnectionsPerAddress + connectsPerSecondPerAddress + authFailuresPerMinutePerAddress > 0;
}

function readValues(settings: SettingsByKey, env: Environment, faults: string[]): Record<string, unknown> {
  const entries = Object.entries(settings);
  return Object.fromEntries(entries.map(([key, setting]) => [key, readValue(setting, env, faults)]));
}

/** Values of engines' settings, with the one that says where it is as `url`. */
function brokersOf(
  values: ReadonlyMap<EngineSettings, Readonly<Record<string, unknown>>>,
): Record<string, Readonly<Record<string, unknown>>> {
  const located = Array.from(values, ([engine, own]) => {
    const name = urlNameOf(engine);
    return name === undefined || engine.url === undefined ? [] : [[name, { ...own, url: own[engine.url] }] as const];
  });
  return Object.fromEntries(located.flat());
}

function isSet(env: Environment, name: string): boolean {
  return env[name] !== undefined && env[name] !== '';
}

/** A faulty value counts as the default, so that one fault does not cause others about relations. */
function readValue(setting: Setting<unknown>, env: Environment, faults: string[]): unknown {
  const { name, kind } = setting;
  const given = env[name];
  if (given !== undefined && given !== '') {
    const value = kind.parse(given);
    if (value !== undefined) return value;
    const shown = kind.show(given);
    const why = kind.why?.(given);
    faults.push(
      `${name}: ${shown === undefined ? 'the value (not shown)' : `"${visible(shown)}"`} is not ${kind.allowed}` +
        (why === undefined ? '' : `: ${why}`),
    );
  }
  return setting.default === undefined ? undefined : kind.parse(setting.default);
}

/** A line break at the end, as of a file from Windows, would not be seen. */
function visible(text: string): string {
  return text.replace(/\p{Cc}/gu, (mark) => JSON.stringify(mark).slice(1, -1));
}

/** Each worker's name ends with its number, at most `-64`. */
const workerNodeIdLengthMax = 61;

const tokenKeys = ['JWT_SECRET', 'JWKS_URL', 'JWT_PUBLIC_KEY'];

/** `given`: the variable is set, even if its value is faulty. */
function relationFaults(
  values: ReadValues,
  { name: sync, shared }: EngineSettings,
  given: (name: string) => boolean,
): string[] {
  const faults: string[] = [];
  const keys = tokenKeys.filter(given);
  if (keys.length > 1) {
    faults.push(`${keys.join(' and ')} are set: keep only one of them, since one key checks all tokens`);
  }
  if (values.nodeEnv === 'production' && keys.length === 0 && !values.allowAnonymous) {
    faults.push(
      'NODE_ENV=production without a token key: set JWT_SECRET, JWKS_URL or JWT_PUBLIC_KEY, or ALLOW_ANONYMOUS=true to' +
        ' let everyone in',
    );
  }
  faults.push(...tokenFaults({ ...values, production: values.nodeEnv === 'production' }, keys.length > 0));
  if (given('DATABASE_URL_DIRECT') && !given('DATABASE_URL')) {
    faults.push('DATABASE_URL_DIRECT without DATABASE_URL: set DATABASE_URL too; both lead to the same database');
  }
  if (!shared && isRelayAlone(values.role)) {
    faults.push(
      `SYNC=${sync} with ROLE=relay: this process would publish to nobody; set another SYNC, or add ws or sse`,
    );
  }
  if (!shared && values.workers > 1) {
    faults.push(
      `WORKERS=${values.workers} with SYNC=${sync}: the workers would not get each other's publications; set another SYNC`,
    );
  }
  if (values.workers > 1 && (values.nodeId?.length ?? 0) > workerNodeIdLengthMax) {
    faults.push(
      `NODE_ID has ${values.nodeId?.length} characters: with WORKERS it may have ${workerNodeIdLengthMax}, since each worker` +
        ' adds its number',
    );
  }
  if (values.maxMessageBytes > values.maxBufferedBytes) {
    faults.push(
      `MAX_MESSAGE_BYTES (${values.maxMessageBytes}) is more than MAX_BUFFERED_BYTES (${values.maxBufferedBytes}): one` +
        ' message would cut its readers off; raise the second or lower the first',
    );
  }
  return faults;
}

function isRelayAlone(role: ReadonlySet<Role>): boolean {
  return role.has('relay') && !role.has('ws') && !role.has('sse');
}

function misspelledNames(env: Environment, engines: readonly EngineSettings[]): string[] {
  const known = allSettings(engines).map((setting) => setting.name);
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
