// Reads the channel rules from the configuration file, at the start and at each reload.

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { plugin } from 'bun';
import { configFaults } from '../rules/faults.ts';
import { defineConfig, type RealtimeConfig } from '../rules/config.ts';
import { Rules } from '../rules/rules.ts';
import { isExecutable, shippedPath } from '../shipped/files.ts';
import { within } from '../time/within.ts';
import { FreshModule } from './fresh-module.ts';
import { SettingsError, type Settings } from './settings.ts';

/** What is wrong with the file, one sentence per fault. */
export class RulesError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(faults.join('; '));
    this.name = 'RulesError';
    this.faults = faults;
  }
}

// A configuration file may stand anywhere, also where no package of this name is installed.
plugin({
  name: 'sobranie/config',
  setup: (build) => {
    build.module('sobranie/config', () => ({ exports: { defineConfig }, loader: 'object' }));
  },
});

const fileName = 'realtime.config.ts';

/** The executable brings rules too, and takes those of the folder where it is started if there are any. */
function standardFile(): string {
  const here = resolve(fileName);
  return isExecutable && existsSync(here) ? here : shippedPath(fileName);
}

const readMsMax = 5_000;

/** Where rules come from, at the start and at each reload. */
export interface RulesSource {
  /** What messages name it by. */
  readonly path: string;
  /** @throws RulesError with every fault. */
  read(): Promise<Rules>;
}

/** Rules that a program gives as they are. */
export class GivenRules implements RulesSource {
  readonly path = 'the given rules';
  readonly #config: RealtimeConfig;

  constructor(config: RealtimeConfig) {
    this.#config = config;
  }

  read(): Promise<Rules> {
    const faults = configFaults(this.#config);
    if (faults.length > 0) return Promise.reject(new RulesError(faults));
    return Promise.resolve(new Rules(this.#config));
  }
}

export class RulesFile implements RulesSource {
  readonly path: string;
  readonly #module: FreshModule;

  constructor(path: string | undefined) {
    this.path = path === undefined ? standardFile() : resolve(path);
    this.#module = new FreshModule(this.path);
  }

  /** The rules as the file says them now, with the files that it imports. @throws RulesError with every fault. */
  async read(): Promise<Rules> {
    const config = await this.#load();
    const faults = configFaults(config);
    if (faults.length > 0) throw new RulesError(faults.map((fault) => `${this.path}: ${fault}`));
    return new Rules(config);
  }

  async #load(): Promise<RealtimeConfig> {
    try {
      const module = (await within(this.#module.load(), readMsMax, 'loading it')) as { default?: unknown };
      if (module.default === undefined) throw new RulesError([`${this.path}: it has no default export`]);
      // Its shape is unknown: the caller looks for faults before using it.
      return module.default as RealtimeConfig;
    } catch (error) {
      if (error instanceof RulesError) throw error;
      throw new RulesError([`${this.path}: it cannot be read: ${reasonOf(error, this.path)}`]);
    }
  }
}

/** @throws SettingsError when the rules are faulty: such a server does not start. */
export async function openRulesFile(
  { configFile }: Pick<Settings, 'configFile'>,
  given?: RulesSource,
): Promise<{ file: RulesSource; rules: Rules }> {
  const file = given ?? new RulesFile(configFile);
  try {
    return { file, rules: await file.read() };
  } catch (error) {
    throw error instanceof RulesError ? new SettingsError(error.faults) : error;
  }
}

/** Of a file with many errors the first ones tell what is wrong; those behind them often follow from these. */
const errorsShown = 3;

/** With the place of each syntax error; the file is named where it is one that the rules file imports. */
function reasonOf(error: unknown, rulesFile: string): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return error.errors
      .slice(0, errorsShown)
      .map((each) => reasonOf(each, rulesFile))
      .join('; ');
  }
  const text = error instanceof Error ? error.message : String(error);
  const { position } = error as { position?: { file?: unknown; line?: unknown; column?: unknown } | null };
  if (position === undefined || position === null) return text;
  const place = `line ${String(position.line)}, column ${String(position.column)}`;
  return position.file === rulesFile ? `${text} (${place})` : `${text} (${String(position.file)}, ${place})`;
}
