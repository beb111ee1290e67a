// What a program gives in place of the server's environment and its configuration file, checked at once: a faulty option
// throws where the program names it, with every fault in one list.

import shippedRules from '../../realtime.config.ts';
import { engines } from '../app/engines.ts';
import { configFaults } from '../rules/faults.ts';
import { GivenRules, type RulesSource } from '../settings/rules-file.ts';
import { readSettings, SettingsError, type Environment, type Settings } from '../settings/settings.ts';
import type { GuestOptions } from './guest-options.ts';

/** Keeps everything in this process, and needs no database. */
export const singleProcessEngine = engines.find(({ shared }) => !shared)?.name ?? '';

export interface ReadOptions {
  readonly settings: Settings;
  readonly rules: RulesSource;
}

/** @throws SettingsError with every fault. */
export function readOptions(options: GuestOptions, overriding: Environment = {}): ReadOptions {
  const { rules, authorize, settings: environment = process.env } = options;
  const config = {
    rules: rules ?? shippedRules.rules,
    ...(authorize === undefined ? {} : { authorize }),
  };
  const faults = configFaults(config);
  let settings: Settings | undefined;
  try {
    settings = readSettings({ ...environment, ...overriding }, engines);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    faults.push(...error.faults);
  }
  if (settings === undefined || faults.length > 0) throw new SettingsError(faults);
  return { settings, rules: new GivenRules(config) };
}
