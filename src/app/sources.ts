// Opens the sources of `realtime.config.ts`: finds their brokers, whose drivers are loaded only where a source is of their
// kind, and tells the operator how it goes.

import type { SourceState } from '../metrics/source-metrics.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { NamedSource, SourceKind } from '../rules/source-config.ts';
import { SettingsError, type Settings } from '../settings/settings.ts';
import type { BrokerParts, SourceBroker } from '../sources/source.ts';
import type { Clock } from '../time/clock.ts';
import { HealthFault, isUntrusted, plainCause } from './causes.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import type { Health } from './health.ts';
import type { Logger } from './logger.ts';

export interface SourcesParts {
  readonly settings: Settings;
  readonly sources: readonly NamedSource[];
  readonly database: NodeDatabase | undefined;
  readonly metrics: Metrics;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

/** The settings of an engine over the same broker say where it is, and as whom to enter. */
const settingOf: Readonly<Record<SourceKind, string>> = {
  kafka: 'KAFKA_URL',
  rabbitmq: 'RABBITMQ_URL',
  nats: 'NATS_URL',
  redisStream: 'REDIS_URL',
};

/** Throws a SettingsError when a source cannot be what is meant. A broker that is away is waited for. */
export async function startSources(parts: SourcesParts): Promise<() => readonly SourceState[]> {
  const { settings, sources, database, metrics, health, clock, log, closing } = parts;
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
  const kinds = new Map(sources.map(({ name, kind }) => [name, kind]));
  health.addNote('sources', () => checkSources(running.states, kinds));
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
function checkSources(states: readonly SourceState[], kinds: ReadonlyMap<string, SourceKind>): Promise<void> {
  const failing = states.filter(({ fault }) => fault !== undefined);
  if (failing.length === 0) return Promise.resolve();
  const causes = new Set(failing.flatMap(({ name, fault }) => causeOf(fault, kinds.get(name)) ?? []));
  const why = causes.size === 0 ? 'the log says why' : [...causes].join('; ');
  throw new HealthFault(`${failing.length} of ${states.length} sources cannot be read: ${why}`);
}

/** In plain words, with the setting that names a private authority where that is what may be missing. */
function causeOf(fault: unknown, kind: SourceKind | undefined): string | undefined {
  const cause = plainCause(fault);
  if (kind === undefined || !isUntrusted(fault)) return cause;
  return `${cause}: ${settingOf[kind].replace('_URL', '_TLS_CA')} names the authority that signed it`;
}
