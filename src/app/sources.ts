// Opens the sources of `realtime.config.ts`: finds their brokers, whose drivers are loaded only where a source is of their
// kind, and tells the operator how it goes.

import type { SourceState } from '../metrics/source-metrics.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { NamedSource } from '../rules/source-config.ts';
import type { EngineSettings } from '../settings/engine-settings.ts';
import { SettingsError, type Settings } from '../settings/settings.ts';
import type { BrokerParts, SourceBroker } from '../sources/source.ts';
import type { Clock } from '../time/clock.ts';
import { HealthFault } from './causes.ts';
import { causeFor, engineOf, settingOf } from './broker-tls.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import type { Health } from './health.ts';
import type { Logger } from './logger.ts';

export interface SourcesParts {
  readonly settings: Settings;
  readonly engines: readonly EngineSettings[];
  readonly sources: readonly NamedSource[];
  readonly database: NodeDatabase | undefined;
  readonly metrics: Metrics;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

/** Throws a SettingsError when a source cannot be what is meant. A broker that is away is waited for. */
export async function startSources(parts: SourcesParts): Promise<() => readonly SourceState[]> {
  const { settings, engines, sources, database, metrics, health, clock, log, closing } = parts;
  const none = (): readonly SourceState[] => [];
  if (sources.length === 0) return none;
  if (database === undefined) {
    throw new SettingsError(['sources: this server has no database to keep their positions in; remove them']);
  }
  const opened = await openAll(parts);
  if (!settings.role.has('relay')) return none;
  const { Sources } = await import('../sources/sources.ts');
  const running = new Sources({
    sources: opened,
    directUrl: database.relayUrl,
    sql: database.sql,
    messageBytesMax: settings.maxMessageBytes,
    isLayerUp: () => health.isOk('sync') !== false,
    observer: {
      messages: (source, outcome, count) => metrics.sourceMessages(source, outcome, count),
      parked: (source, count, error) =>
        log.error(
          { source, messages: count, reason: error },
          'messages could not be published and are parked: see realtime.parked',
        ),
    },
    clock,
    log,
  });
  running.start();
  closing.add('sources', () => running.close());
  const byName = new Map(sources.map((source) => [source.name, source]));
  const causeOf = (state: SourceState): string | undefined => {
    const source = byName.get(state.name);
    return source === undefined ? undefined : causeFor(state, source, settings, engineOf(source, engines));
  };
  health.addNote('sources', () => checkSources(running.states, causeOf));
  return () => running.states;
}

async function openAll({
  settings,
  sources,
  log,
}: SourcesParts): Promise<{ source: NamedSource; broker: SourceBroker }[]> {
  const faults: string[] = [];
  const opened: { source: NamedSource; broker: SourceBroker }[] = [];
  for (const source of sources) {
    const setting = settingOf[source.kind];
    const own = settings.brokers[setting] ?? {};
    const url = source.options.url ?? own['url'];
    if (typeof url !== 'string') {
      faults.push(`sources: "${source.name}" has no \`url\`, and ${setting} is not set: where is the broker?`);
      continue;
    }
    const broker = {
      client: `sobranie ${settings.nodeId}`,
      warn: (message: string) => log.warn({ source: source.name }, message),
    };
    try {
      opened.push({ source, broker: await open(source, { ...own, url }, broker) });
    } catch (error) {
      faults.push(`sources: "${source.name}": url: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  if (faults.length > 0) throw new SettingsError(faults);
  return opened;
}

interface BrokerSettings {
  readonly url: string;
  readonly tlsCa?: string | undefined;
  readonly credentials?: string | undefined;
}

/** Connects to nothing. Throws when the URL is none of that broker's. */
async function open(
  source: NamedSource,
  { url, tlsCa, credentials }: BrokerSettings,
  parts: BrokerParts,
): Promise<SourceBroker> {
  switch (source.kind) {
    case 'redisStream': {
      const [{ redisStreamBroker }, { redisTarget }] = await Promise.all([
        import('../sources/redis-stream.ts'),
        import('../redis/target.ts'),
      ]);
      return redisStreamBroker(source.options, redisTarget({ url, tlsCa }), parts);
    }
    case 'nats': {
      const [{ natsBroker }, { parseNatsUrl }] = await Promise.all([
        import('../sources/nats.ts'),
        import('../nats/target.ts'),
      ]);
      return natsBroker(source.options, { ...parseNatsUrl(url), tlsCa, credentials }, parts);
    }
    case 'rabbitmq': {
      const [{ rabbitBroker }, { parseRabbitUrl }] = await Promise.all([
        import('../sources/rabbitmq.ts'),
        import('../rabbitmq/target.ts'),
      ]);
      return rabbitBroker(source.options, { ...parseRabbitUrl(url), tlsCa }, parts);
    }
    case 'kafka': {
      const [{ kafkaBroker }, { parseKafkaUrl }] = await Promise.all([
        import('../sources/kafka.ts'),
        import('../kafka/target.ts'),
      ]);
      return kafkaBroker(source.options, { ...parseKafkaUrl(url), tlsCa }, parts);
    }
  }
}

/** Rejects when a source cannot be read by this node. */
function checkSources(
  states: readonly SourceState[],
  causeOf: (state: SourceState) => string | undefined,
): Promise<void> {
  const failing = states.filter(({ fault }) => fault !== undefined);
  if (failing.length === 0) return Promise.resolve();
  const causes = new Set(failing.flatMap((state) => causeOf(state) ?? []));
  const why = causes.size === 0 ? 'the log says why' : [...causes].join('; ');
  throw new HealthFault(`${failing.length} of ${states.length} sources cannot be read: ${why}`);
}
