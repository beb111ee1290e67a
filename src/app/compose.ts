// Puts the node together. Each part is closed in the reverse order of its start, also when a later one fails to start.

import type { Elysia } from 'elysia';
import packageJson from '../../package.json' with { type: 'json' };
import { randomId, systemClock, type Clock } from '../time/clock.ts';
import { fixedLayer } from '../changes/layer-name.ts';
import { createCore } from '../core/core.ts';
import type { Hub } from '../core/hub.ts';
import type { Limits } from '../core/limits.ts';
import type { Sessions } from '../core/sessions.ts';
import { noSnapshots } from '../core/snapshot.ts';
import { RateHistory } from '../metrics/rate-history.ts';
import { createMetrics, type Metrics, type RenderedMetrics } from '../metrics/metrics.ts';
import { NodePresence } from '../presence/presence.ts';
import type { Nodes } from '../nodes/nodes.ts';
import { connectionPrefixLength } from '../nodes/whole-cluster.ts';
import { demoPages } from '../pages/demo.ts';
import { ConnectionLog } from '../transports/connection-log.ts';
import { startAccess } from './access.ts';
import { authorityFaults } from './broker-tls.ts';
import { createTransports, transportKinds } from './transports.ts';
import type { TopicPublisher } from '../transports/websocket-fanout.ts';
import { CloseStack } from './close-stack.ts';
import { nowhere, openDatabase, readWatches, type NodeDatabase } from './database.ts';
import { openEngine, watched, type Engine } from './engine.ts';
import { engines as allEngines } from './engines.ts';
import { openIdentity } from './identity.ts';
import { checkLayer, startLineage } from './lineage.ts';
import { connectionsWithin, openFilesReserve } from './open-files.ts';
import { openHooks } from './hooks.ts';
import { unlessInterrupted } from './interruption.ts';
import { joinNodes } from './join-nodes.ts';
import { createLimits } from './limits.ts';
import { Health } from './health.ts';
import type { Logger } from './logger.ts';
import { startRelay } from './relay.ts';
import { openRulesFile, type RulesSource } from '../settings/rules-file.ts';
import { createServer, heartbeatInForce } from './server.ts';
import { SettingsError, type Settings } from '../settings/settings.ts';
import { Shutdown } from './shutdown.ts';
import { engineFault } from './start-fault.ts';
import { startSources } from './sources.ts';
import { openSnapshots } from './snapshots.ts';
import { openSocket } from './socket.ts';
import { startTimers } from './timers.ts';
import { openTracing } from './tracing.ts';

/** The answer to whoever asked for the drain leaves within this time. */
const drainDelayMs = 100;

export interface Node {
  readonly url: string;
  readonly hub: Hub;
  readonly sessions: Sessions;
  readonly limits: Limits;
  readonly shutdown: Shutdown;
  /** Undefined where the node was to have none. */
  readonly database: NodeDatabase | undefined;
  readonly metrics: Metrics;
  /** Every route. The node's own server, or the application that is its host, answers with it. */
  readonly app: Elysia;
  /** What otherwise happens every few seconds: ends what has expired. */
  readonly sweep: () => void;
  /** New connections go to other processes on this port; those that are open stay. */
  readonly stopListening: () => void;
}

export interface NodeOptions {
  /** Those that the settings were read for. Default: all. */
  readonly engines?: readonly Engine[];
  /** Answers scrapes, where not this node alone does. */
  readonly scrape?: () => Promise<RenderedMetrics>;
  /** Default: the configuration file. */
  readonly rules?: RulesSource;
  readonly clock?: Clock;
  /** Watches no table and reads no rows. Only with an engine that needs no database. */
  readonly withoutDatabase?: boolean;
  /** Whether people may open pages on it, such as the demo. Default: outside production. */
  readonly pages?: boolean;
  /** Answers in place of a server of the node's own, which does not listen then. */
  readonly host?: NodeHost;
  /** Ends the start, which then rejects with `StartInterrupted` once everything is closed. */
  readonly interrupted?: AbortSignal;
}

/** Nobody's by accident: in production it needs a key. */
export function hasConsole({ production, adminKey }: Settings): boolean {
  return !production || adminKey !== undefined;
}

/** An application whose server hands requests on. */
export interface NodeHost {
  /** An operator asks for a drain. */
  readonly drain: () => void;
  /** Whether it passes requests for `/console` and `/swagger` on. */
  readonly console: boolean;
  readonly swagger: boolean;
}

export async function startNode(settings: Settings, log: Logger, options: NodeOptions = {}): Promise<Node> {
  const closing = new CloseStack(log);
  try {
    return await unlessInterrupted(start(settings, log, options, closing), options.interrupted);
  } catch (error) {
    await closing.close();
    throw error;
  }
}

async function start(given: Settings, log: Logger, options: NodeOptions, closing: CloseStack): Promise<Node> {
  const { engines = allEngines, clock = systemClock, host } = options;
  const reserve = openFilesReserve();
  const settings = { ...given, maxConnections: connectionsWithin(reserve, given.maxConnections, log) };
  const { file, rules } = await openRulesFile(settings, options.rules);
  const faults = authorityFaults(settings, rules.sources, engines);
  if (faults.length > 0) throw new SettingsError(faults);
  const metrics = createMetrics({ node: settings.nodeId, version: packageJson.version, transports: transportKinds });
  closing.add('metrics', () => metrics.close());

  const database = options.withoutDatabase === true ? undefined : await openDatabase(settings, log, closing);
  const incarnation = randomId(clock, 16);
  let shutdown: Shutdown | undefined = undefined;
  const health = new Health({ clock, drainingSince: () => shutdown?.startedAt, log });
  const engineLog = watched(log, (error) => health.hint('sync', error));
  const engineParts = { incarnation, database: database ?? nowhere, observer: metrics, clock, log: engineLog, closing };
  const ofEngine = <Value>(step: Promise<Value>): Promise<Value> =>
    step.catch((error: unknown) => {
      throw engineFault(error, settings, engines);
    });
  const engine = await ofEngine(openEngine(engines, settings, engineParts));
  const tracing = await openTracing(settings, packageJson.version, log, closing);
  const adapter = tracing?.adapter(engine.adapter) ?? engine.adapter;
  const { authenticate, tokens, tickets } = openIdentity({ settings, store: engine.tickets, clock, log, closing });
  const takesTokens = tokens !== undefined;
  const { access, tryRules } = await startAccess({ rules, file, takesTokens, database, metrics, clock, log, closing });
  const rowsOf = (channel: string) => access.rules.rows(channel);
  const snapshots =
    database === undefined ? noSnapshots : openSnapshots({ settings, database, rowsOf, metrics, clock, log, closing });
  let nodes: Nodes | undefined = undefined;
  const limits = createLimits({ settings, store: engine.limits, nodes: () => nodes, clock, log, closing });
  const presence = new NodePresence({
    store: engine.presence,
    incarnation,
    graceMs: settings.presenceGrace * 1_000,
    dataBytesMax: settings.presenceDataBytes,
    clock,
    sent: (type, channel, count) => metrics.sent(type, channel, count),
    log: (message, error) => log.warn({ err: error }, message),
  });
  const hooks = openHooks({ settings, database, incarnation, metrics, clock, log, closing });
  const connections = new ConnectionLog({ write: (fields, message) => log.info(fields, message), clock });
  const { hub, sessions, subscribing, users, failures, slices } = createCore(
    {
      nodeId: settings.nodeId,
      connectionPrefix: incarnation.slice(0, connectionPrefixLength),
      heartbeatSeconds: heartbeatInForce(settings.heartbeat),
      channelsPerConnectionMax: settings.maxChannelsPerConnection,
      messageBytesMax: settings.maxMessageBytes,
      bufferedBytesMax: settings.maxBufferedBytes,
      holdMax: settings.holdMax,
      keptBytesMax: settings.keptBytesMax,
      recovery: {
        holdMax: settings.holdMax,
        holdBytesMax: 1 << 20,
        pageSize: 200,
        pageBytesMax: 512 << 10,
        timeoutMs: 300_000,
      },
    },
    {
      adapter,
      rules,
      access,
      snapshots,
      presence: hooks.observed(presence),
      limits,
      authenticate,
      observer: metrics,
      occupancy: hooks.occupancy,
      clock,
      cluster: () => nodes?.cluster,
      log: (message, error) => log.error({ err: error }, message),
      ended: (session, code, reason) => connections.ended(session, code, reason),
    },
  );
  let app: Elysia | undefined = undefined;
  const publisher = (): TopicPublisher | null => app?.server ?? null;
  const transports = createTransports(sessions, publisher, settings.maxBufferedBytes);
  const { events } = transports;
  events.start();
  closing.add('event streams', () => events.close());
  for (const fanout of transports.all) {
    hub.attach(fanout);
    presence.attach(fanout);
  }

  await ofEngine(adapter.start(tracing?.events(hub, (channel) => hub.subscribers(channel)) ?? hub));
  closing.add('sync layer', () => adapter.close());
  const layer = engine.layer ?? fixedLayer(adapter.name);
  const lineage = await startLineage({ database, engine, health, log, closing });
  health.add('sync', async (timeoutMs) => {
    await adapter.probe(timeoutMs);
    await checkLayer(lineage?.seen, layer);
  });
  presence.start();
  health.addNote('presence', async () => presence.requireCompared());
  closing.add('presence', () => presence.close());
  const rates = new RateHistory({
    clock,
    read: () => metrics.totals(),
    failed: (error) => log.error({ err: error }, 'the rates of this node could not be read'),
  });
  rates.start();
  closing.add('rates', () => rates.close());
  const joining = joinNodes({
    settings,
    hub,
    sessions,
    users,
    limits,
    failures,
    adapter,
    rules,
    clock,
    incarnation,
    rates: (after) => rates.since(after),
    // As a signal would: in a worker the keeper replaces it.
    drain: () => setTimeout(host?.drain ?? (() => process.kill(process.pid, 'SIGTERM')), drainDelayMs),
    log,
    closing,
  });
  nodes = await ofEngine(joining);
  const { cluster } = nodes;
  const relaySources = await startRelay({
    settings,
    database,
    engine,
    lineage,
    layer,
    rules,
    hub,
    metrics,
    health,
    tracing,
    clock,
    log,
    closing,
  });

  const sourceStates = await startSources({
    settings,
    engines,
    sources: rules.sources,
    database,
    metrics,
    health,
    clock,
    log,
    closing,
  });

  health.start();
  closing.add('health', () => health.close());

  shutdown = new Shutdown({
    sessions,
    clock,
    log,
    timeoutSeconds: settings.shutdownTimeout,
    windowSeconds: settings.drainWindow,
    close: () => closing.close(),
  });
  metrics.readFrom({
    connectionsMax: () => settings.maxConnections,
    subscriptions: () => hub.subscriptionCount,
    channels: () => hub.channelCount,
    presenceMembers: () => presence.members,
    keptBytes: () => hub.keptBytes,
    shutdownSeconds: () => shutdown.seconds,
    databaseUp: () => health.isOk('database'),
    ready: () => health.isReady,
    ...relaySources,
    sourceStates,
    ...hooks.sources,
  });
  const pages = demoPages({
    enabled: options.pages ?? (!settings.production && host === undefined),
    sql: database?.sql,
    psql: database?.psql,
    node: settings.nodeId,
    sync: settings.sync,
    onFailure: (error) => log.error({ err: error }, 'a demo request failed'),
  });
  app = createServer({
    isHosted: host !== undefined,
    hasSwagger: host?.swagger ?? true,
    settings,
    hub,
    snapshots,
    sessions,
    subscribing,
    slices,
    failures,
    limits,
    access,
    presence,
    clock,
    cluster,
    events,
    metrics,
    scrape: options.scrape ?? (() => metrics.render()),
    authenticate,
    tokens,
    tickets,
    health,
    shutdown,
    pages,
    version: packageJson.version,
    traces: tracing !== undefined,
    watches: () => database && readWatches(database.sql),
    hasConsole: host?.console ?? options.pages ?? hasConsole(settings),
    tryRules,
    log,
  });
  const listening = host === undefined ? openSocket(app, settings, reserve, log, closing) : undefined;
  startTimers({ settings, hub, sessions, failures, clock, log, closing });

  return {
    url: listening?.url ?? '',
    hub,
    sessions,
    limits,
    shutdown,
    database,
    metrics,
    app,
    sweep() {
      sessions.expire();
      hub.sweep();
    },
    stopListening: () => listening?.stop(),
  };
}
