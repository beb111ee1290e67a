// The HTTP server: one Elysia app with every route, and the one WebSocket configuration that Bun takes per server.

import { Elysia, type ElysiaConfig } from 'elysia';
import type { Access, Authenticate } from '../core/access.ts';
import type { Failures } from '../core/failures.ts';
import type { Limits } from '../core/limits.ts';
import type { Presence } from '../core/presence.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Slices } from '../core/slices.ts';
import type { Subscribing } from '../core/subscribing.ts';
import type { Clock } from '../time/clock.ts';
import type { Cluster } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import type { Snapshots } from '../core/snapshot.ts';
import type { Metrics, RenderedMetrics } from '../metrics/metrics.ts';
import { Admission } from '../transports/admission.ts';
import { RefusalLog } from '../transports/refusal-log.ts';
import { nodeRoutes } from '../api/nodes.ts';
import { presenceRoutes } from '../api/presence.ts';
import { apiRoutes } from '../api/publish.ts';
import type { EventFanout } from '../transports/event-fanout.ts';
import { addressReader } from '../http/client-address.ts';
import { httpErrors, refusedAddress } from '../http/errors.ts';
import { ExactPaths } from '../http/exact-paths.ts';
import { OwnMachine } from '../http/own-machine.ts';
import { apiOrigins, Origins, preflightRoutes } from '../http/origins.ts';
import { operationsRoutes } from '../api/operations.ts';
import { consolePages } from '../pages/console.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { realtimeRoutes } from '../transports/realtime.ts';
import { rightsRoutes, type RulesTrial } from '../api/rights.ts';
import { ServerAccess } from '../api/server-access.ts';
import { userRoutes } from '../api/users.ts';
import { swaggerRoutes } from '../api/swagger.ts';
import { ticketRoutes, type TicketIssuer } from '../api/tickets.ts';
import type { Health } from './health.ts';
import { limitsAddresses, type Settings } from '../settings/settings.ts';
import { recentOf, type Logger } from './logger.ts';
import type { Shutdown } from './shutdown.ts';

export interface ServerParts {
  /** An application's server hands requests on; none of its own will listen. */
  readonly isHosted: boolean;
  readonly hasSwagger: boolean;
  readonly settings: Settings;
  readonly hub: Hub;
  readonly snapshots: Snapshots;
  readonly sessions: Sessions;
  readonly subscribing: Subscribing;
  readonly slices: Slices;
  readonly failures: Failures;
  readonly limits: Limits;
  readonly access: Access;
  readonly presence: Presence;
  readonly clock: Clock;
  readonly cluster: Cluster;
  readonly events: EventFanout;
  readonly metrics: Metrics;
  readonly scrape: () => Promise<RenderedMetrics>;
  readonly authenticate: Authenticate;
  /** Accepts tokens and no tickets; undefined without a token key. */
  readonly tokens: Authenticate | undefined;
  readonly tickets: TicketIssuer;
  readonly health: Health;
  readonly shutdown: Shutdown;
  /** Routes of the demo; an empty app in production. */
  readonly pages: Elysia;
  readonly version: string;
  /** Publications are traced. */
  readonly traces: boolean;
  /** Of `realtime.watches`; undefined without a database. */
  readonly watches: () => Promise<readonly object[]> | undefined;
  /** Outside production, or with an admin key. */
  readonly hasConsole: boolean;
  readonly tryRules: () => Promise<RulesTrial>;
  readonly log: Logger;
}

/** What may stand around the data of a frame: its other members, or a list of channels. */
export const envelopeBytes = 8 << 10;

/** Bun's timers run in steps of 4 seconds, and ping a silent socket after 8 seconds at the earliest. */
export function heartbeatInForce(heartbeatSeconds: number): number {
  return Math.max(8, Math.ceil(heartbeatSeconds / 4) * 4);
}

/** Seconds of silence after which Bun closes a socket. It pings 8 seconds earlier, or 16 for longer timeouts. */
function idleTimeoutFor(heartbeatSeconds: number): number {
  const heartbeat = heartbeatInForce(heartbeatSeconds);
  return heartbeat + (heartbeat < 16 ? 8 : 16);
}

/** How the runtime keeps WebSockets, all of one server alike. */
export function websocketOptions(settings: Settings): NonNullable<ElysiaConfig<''>['websocket']> {
  return {
    // Above the largest data, with room for what stands around it: too much data is an error and closes nothing.
    maxPayloadLength: settings.maxMessageBytes + envelopeBytes,
    backpressureLimit: settings.maxBufferedBytes,
    closeOnBackpressureLimit: true,
    idleTimeout: idleTimeoutFor(settings.heartbeat),
    sendPings: true,
    perMessageDeflate: false,
  };
}

export function createServer(parts: ServerParts): Elysia {
  const { settings, hub, sessions, subscribing, failures, limits, access, clock, metrics, shutdown } = parts;
  const isShuttingDown = () => shutdown.started;
  const origins = new Origins(settings.allowedOrigins);
  const config: ElysiaConfig<''> = {
    // A slash at the end makes another path: otherwise a proxy's rule for one path would not hold for the other.
    strictPath: true,
    // Host names of one to three letters, as in containers, break the router's shortcut.
    handler: { standardHostname: false },
    websocket: websocketOptions(settings),
    serve: {
      // Two servers on one port would share its connections unnoticed: only workers of one server may.
      reusePort: settings.workers > 1,
      hostname: settings.host,
      // A slow trickle of bytes does not prolong it. It holds for bodies and for all heads but the first of a connection,
      // for which the runtime has 12 seconds of its own.
      idleTimeout: settings.requestTimeout,
      // A larger body gets the runtime's bare 413, without the error's body. No more of one below this is kept than its
      // call takes, and nothing of one that no call reads: the runtime then takes no more from the sender.
      maxRequestBodySize: Math.max(32 << 20, settings.maxMessageBytes * 2),
    },
  };
  const refuse = (request: Request, methods: readonly string[]): Response =>
    refusedAddress(methods, origins.apiHeaders(request));
  // Without a server of its own it has no routes in the runtime's router, which exact paths rest on.
  const app = parts.isHosted ? new Elysia(config) : new ExactPaths({ ...config, refuse });
  const peerOf = (request: Request) => app.server?.requestIP(request) ?? undefined;
  const anyAddressOf = addressReader((request) => peerOf(request)?.address, settings.trustedProxies);
  const addressOf = limitsAddresses(settings) ? anyAddressOf : undefined;
  const refusals = new RefusalLog({
    write: (fields, message) => parts.log.info(fields, message),
    addressOf: anyAddressOf,
    clock,
  });
  const takesTokens = parts.tokens !== undefined;
  if (!settings.production && (!takesTokens || settings.apiKey === undefined)) {
    app.use(ownMachineOnly(settings, takesTokens, refusals));
  }
  // Before the general error answers: those of the demo say more.
  app.use(parts.pages);
  app.use(
    httpErrors({
      expected: (error) => failures.expected(error),
      headers: (request) => origins.apiHeaders(request),
    }),
  );
  app.use(
    realtimeRoutes({
      silenceSecondsMax: settings.requestTimeout,
      sessions,
      subscribing,
      clock,
      events: parts.events,
      admission: new Admission({
        sessions,
        slices: parts.slices,
        limits,
        observer: metrics,
        failures,
        authenticate: parts.authenticate,
        origins,
        connectionsMax: settings.maxConnections,
        isShuttingDown,
        addressOf,
        refusals,
      }),
      origins,
      retryMs: settings.sseRetry,
      compresses: settings.sseCompression,
      deflates: settings.wsCompression,
      transports: { websocket: settings.role.has('ws'), sse: settings.role.has('sse') },
    }),
  );
  app.use(preflightRoutes(origins));
  if (settings.role.has('api')) {
    const serverAccess = new ServerAccess({
      limits,
      observer: metrics,
      addressOf,
      apiKey: settings.apiKey,
      openWithoutKey: !settings.production,
      adminKey: settings.adminKey,
      openWithoutAdminKey: !settings.production && settings.apiKey === undefined,
      authenticate: parts.authenticate,
      access,
      takesTokens,
    });
    const { tickets, tokens } = parts;
    const ticketing = ticketRoutes({ tickets, serverAccess, origins, tokens, isClosed: isShuttingDown });
    const api = apiRoutes({
      hub,
      snapshots: parts.snapshots,
      messageBytesMax: settings.maxMessageBytes,
      cluster: parts.cluster,
      serverAccess,
      isClosed: isShuttingDown,
      traceOf: parts.traces ? (request) => request.headers.get('traceparent') ?? undefined : undefined,
    });
    const rights = rightsRoutes({
      cluster: parts.cluster,
      serverAccess,
      tryRules: parts.tryRules,
    });
    const present = presenceRoutes({ presence: parts.presence, serverAccess });
    const { maxMessageBytes: messageBytesMax } = settings;
    const users = userRoutes({ hub, cluster: parts.cluster, serverAccess, messageBytesMax, clock });
    const nodes = nodeRoutes({
      node: settings.nodeId,
      version: parts.version,
      cluster: parts.cluster,
      serverAccess,
      clock,
      peerOf,
      addressOf: anyAddressOf,
    });
    const calls = new Elysia({ name: 'sobranie-calls' }).use(apiOrigins(origins));
    app.use(calls.use(api).use(present).use(users).use(rights).use(nodes).use(ticketing));
    if (parts.hasConsole) {
      app.use(
        consolePages({
          node: settings.nodeId,
          version: parts.version,
          sync: settings.sync,
          hub,
          cluster: parts.cluster,
          requireAdmin: (request) => serverAccess.requireAdmin(request),
          health: () => parts.health.ready(),
          metrics: parts.scrape,
          watches: parts.watches,
          errors: () => recentOf(parts.log),
          ticket: (channel) => tickets.vouch({ user: 'console', channels: { [channel]: ['subscribe', 'history'] } }),
        }),
      );
    }
    if (parts.hasSwagger) app.use(swaggerRoutes(parts.version));
  }
  app.use(
    operationsRoutes({
      health: parts.health,
      metrics: parts.scrape,
    }),
  );
  return app;
}

/** Before every route alike. */
function ownMachineOnly(settings: Settings, takesTokens: boolean, refusals: RefusalLog): Elysia {
  const { host: listeningHost, allowedOrigins } = settings;
  const ownMachine = new OwnMachine({ listeningHost, allowedOrigins, takesTokens });
  return new Elysia({ name: 'sobranie-own-machine' }).onRequest(({ request }) => {
    try {
      ownMachine.check(request);
    } catch (error) {
      if (error instanceof RealtimeError) refusals.note('http', request, error);
      throw error;
    }
  });
}
