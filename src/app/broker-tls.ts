// TLS to the brokers of sources, whose authorities and URLs are those of an engine over the same broker: what the settings
// must agree in, and what to mend where a broker and a URL do not.

import type { SourceState } from '../metrics/source-metrics.ts';
import type { NamedSource, SourceKind } from '../rules/source-config.ts';
import { urlNameOf, usesTls, type EngineSettings } from '../settings/engine-settings.ts';
import type { Settings } from '../settings/settings.ts';
import { plainCause, tlsTrouble } from './causes.ts';

/** The settings of an engine over the same broker say where it is, and as whom to enter. */
export const settingOf: Readonly<Record<SourceKind, string>> = {
  kafka: 'KAFKA_URL',
  rabbitmq: 'RABBITMQ_URL',
  nats: 'NATS_URL',
  redisStream: 'REDIS_URL',
};

/** The engine over the same broker, whose settings hold for its sources too. */
export function engineOf({ kind }: NamedSource, engines: readonly EngineSettings[]): EngineSettings | undefined {
  return engines.find((engine) => urlNameOf(engine) === settingOf[kind]);
}

/**
 * What is wrong with the settings of authorities, one sentence per fault: whoever sets one means to speak TLS, and would
 * speak without.
 */
export function authorityFaults(
  { brokers }: Settings,
  sources: readonly NamedSource[],
  engines: readonly EngineSettings[],
): readonly string[] {
  return engines.flatMap((engine) => {
    const name = urlNameOf(engine);
    const own = brokers[name ?? ''];
    if (name === undefined || own?.['tlsCa'] === undefined) return [];
    const ofSources = sources.filter((source) => settingOf[source.kind] === name).map(({ options }) => options.url);
    if ([own['url'], ...ofSources].some((url) => usesTls(engine, url))) return [];
    const beginning = `begin it with ${engine.tlsScheme}`;
    return [
      `${engine.settings['tlsCa']?.name} is set and ${name} uses no TLS: ${beginning}, or the \`url\` of a source`,
    ];
  });
}

/** In plain words, with the setting to mend where TLS, or none, may be what is wrong. */
export function causeFor(
  { fault, wasRead }: SourceState,
  { kind, options }: NamedSource,
  { brokers }: Settings,
  engine: EngineSettings | undefined,
): string | undefined {
  const cause = plainCause(fault);
  const trouble = tlsTrouble(fault);
  if (cause === undefined || trouble === undefined || engine === undefined) return cause;
  const setting = settingOf[kind];
  const where = options.url === undefined ? setting : 'the `url` of the source';
  const url = options.url ?? brokers[setting]?.['url'];
  switch (trouble) {
    case 'untrusted':
      return `${cause}: ${engine.settings['tlsCa']?.name} names the authority that signed it`;
    case 'none there':
      return `${cause}: begin ${where} without TLS, or let it lead to the port that speaks it`;
    case 'perhaps wanted':
      // One that was read before is only away.
      if (wasRead || usesTls(engine, url)) return cause;
      return `${cause}: if it speaks TLS at that port, begin ${where} with ${engine.tlsScheme}`;
  }
}
