// What the settings know of engines: that each has a name, settings of its own, and perhaps one that says where it is.
// Whoever reads the settings names the engines.

import { oneOf } from './kinds.ts';
import { optional, type Setting, type SettingsByKey } from './setting.ts';

export interface EngineSettings {
  /** What SYNC calls it. */
  readonly name: string;
  /** As its makers write it, for people. Default: the name. */
  readonly title?: string;
  /** Publications reach other processes. */
  readonly shared: boolean;
  /** Its own settings, by the keys under which it gets their values. */
  readonly settings: SettingsByKey;
  /** The key of the setting that says where it is. It is needed, and chooses this engine where SYNC is unset. */
  readonly url?: string | undefined;
  /** How its URL begins where it speaks TLS. Its setting for a private authority then has the key `tlsCa`. */
  readonly tlsScheme?: string | undefined;
}

/** The environment variable that says where the engine is; undefined if none does. */
export function urlNameOf({ settings, url }: EngineSettings): string | undefined {
  return url === undefined ? undefined : settings[url]?.name;
}

/** Whether the URL of the engine says so; others may begin alike, as `rediss+cluster://` does. */
export function usesTls({ tlsScheme }: EngineSettings, url: unknown): boolean {
  return tlsScheme !== undefined && typeof url === 'string' && url.startsWith(tlsScheme.replace('://', ''));
}

/** The setting that chooses an engine. Where nothing does, the first one is taken. */
export function syncSetting(engines: readonly EngineSettings[]): Setting<string | undefined> {
  const byUrl = engines.flatMap((engine) => {
    const url = urlNameOf(engine);
    return url === undefined ? [] : [`\`${engine.name}\` if \`${url}\` is set`];
  });
  const alone = engines.filter(({ shared }) => !shared).map(({ name }) => `\`${name}\``);
  return optional(
    'SYNC',
    oneOf(engines.map(({ name }) => name)),
    [...byUrl, `else \`${engines[0]?.name ?? ''}\``].join(', '),
    'The sync layer: it carries publications between nodes and keeps history.' +
      ` ${alone.join(' and ')} is for one process alone.`,
  );
}

/**
 * The engine that is named, or else the one whose URL was given, or else the first. Where several URLs were given and
 * none is named, a fault says so.
 */
export function chooseEngine<Engine extends EngineSettings>(
  engines: readonly Engine[],
  named: unknown,
  given: (name: string) => boolean,
): { engine: Engine; faults: readonly string[] } {
  const located = engines.filter((engine) => given(urlNameOf(engine) ?? ''));
  const engine = engines.find(({ name }) => name === named) ?? located[0] ?? engines[0];
  if (engine === undefined) throw new Error('there is no engine');
  const faults: string[] = [];
  const url = urlNameOf(engine);
  if (url !== undefined && !given(url)) faults.push(`SYNC=${engine.name} without ${url}: set ${url}`);
  if (named === undefined && located.length > 1) {
    const urls = located.map((each) => urlNameOf(each)).join(' and ');
    faults.push(`${urls} are set: set SYNC too, to name the engine`);
  }
  return { engine, faults };
}
