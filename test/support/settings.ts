// Settings as the server reads them, with the engines that it has.

import { engines } from '../../src/app/engines.ts';
import { readSettings, SettingsError, type Environment, type Settings } from '../../src/settings/settings.ts';

export function settingsOf(env: Environment): Settings {
  return readSettings(env, engines);
}

/** The faults that a start would list. */
export function faultsOf(env: Environment): readonly string[] {
  try {
    settingsOf(env);
    return [];
  } catch (error) {
    if (error instanceof SettingsError) return error.faults;
    throw error;
  }
}
