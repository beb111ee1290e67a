// An engine as a row of `engines.ts`, and how the one that the settings name is opened.

import type { EngineSettings } from '../settings/engine-settings.ts';
import type { SettingsByKey, ValuesOf } from '../settings/setting.ts';
import type { Settings } from '../settings/settings.ts';
import type { EngineLog, EngineParts, OpenEngine } from '../sync/engine.ts';
import { plainCause } from './causes.ts';
import type { Logger } from './logger.ts';

/** What is known of an engine before it is opened, and how to open it. */
export interface Engine extends EngineSettings {
  /** `values` are those of its own settings. Rejects when the layer cannot be reached. */
  open(values: Readonly<Record<string, unknown>>, parts: EngineParts): Promise<OpenEngine>;
}

export interface EngineRow<Own extends SettingsByKey> {
  readonly name: string;
  readonly title?: string;
  readonly shared: boolean;
  readonly settings: Own;
  readonly url?: keyof Own & string;
  readonly tlsScheme?: string;
  readonly open: (values: ValuesOf<Own>, parts: EngineParts) => Promise<OpenEngine>;
}

/** A row whose functions get the values of its own settings by their types. */
export function engine<Own extends SettingsByKey>({ open, ...row }: EngineRow<Own>): Engine {
  // The row's settings are what both these values and their type are made of.
  const typed = (values: Readonly<Record<string, unknown>>): ValuesOf<Own> => values as ValuesOf<Own>;
  return {
    ...row,
    open: (values, parts) => open(typed(values), parts),
  };
}

/** Opens the one that the settings name. */
export async function openEngine(
  engines: readonly Engine[],
  { sync, engine: values }: Settings,
  parts: EngineParts,
): Promise<OpenEngine> {
  const row = engines.find(({ name }) => name === sync);
  if (row === undefined) throw new Error(`there is no engine named ${sync}`);
  const open = await row.open(values, parts);
  const { name, traits } = open.adapter;
  // The settings were checked by the row, and metrics and the log name the adapter.
  if (name !== row.name || traits.shared !== row.shared)
    throw new Error(`the row of ${row.name} is not of its adapter`);
  return open;
}

/** The same log, that also gives the errors which are warnings or worse to `failed`. */
export function watched(log: Pick<Logger, 'error' | 'warn' | 'debug'>, failed: (error: unknown) => void): EngineLog {
  return {
    error(details, message) {
      failed(details.err);
      log.error(details, message);
    },
    warn(details, message) {
      failed(details.err);
      // What is waited for: a stack would hide the sentence that helps.
      log.warn({ cause: plainCause(details.err) ?? String(details.err) }, message);
    },
    debug: (details, message) => log.debug(details, message),
  };
}
