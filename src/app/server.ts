// The HTTP server: one Elysia app with every route, and the options of Bun's one WebSocket configuration.

import { Elysia } from 'elysia';
import type { SyncAdapter } from '../core/sync-adapter.ts';
import type { Access, Authenticate } from '../core/access.ts';
import type { Failures } from '../core/failures.ts';
import type { Limits } from '../core/limits.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Subscribing } from '../core/subscribing.ts';
import type { Clock } from '../time/clock.ts';
import type { Cluster } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { Admission } from '../transports/admission.ts';
import { apiRoutes } from '../api/publish.ts';
import { apiOrigins, preflightRoutes } from '../api/cross-origin.ts';
import type { EventFanout } from '../transports/event-fanout.ts';
import { addressReader } from '../http/client-address.ts';
import { httpErrors } from '../http/errors.ts';
import { Origins } from '../http/origins.ts';
import { operationsRoutes } from '../api/operations.ts';
import { realtimeRoutes } from '../transports/realtime.ts';
import { rightsRoutes, type RulesTrial } from '../api/rights.ts';
import { ServerAccess } from '../api/server-access.ts';
import { swaggerRoutes } from '../api/swagger.ts';
import { ticketRoutes, type TicketOffice } from '../api/tickets.ts';
import { readyChecks } from './health.ts';
import { limitsAddresses, type Settings } from '../settings/settings.ts';
import type { Shutdown } from './shutdown.ts';

export interface ServerParts {
  readonly settings: Settings;
  readonly hub: Hub;
  readonly sessions: Sessions;
  readonly subscribing: Subscribing;
  readonly failures: Failures;
  readonly limits: Limits;
  readonly access: Access;
  readonly clock: Clock;
  readonly cluster: Cluster;
  readonly adapter: SyncAdapter;
  readonly events: EventFanout;
  readonly metrics: Metrics;
  readonly authenticate: Authenticate;
  /** Takes tokens and no tickets; undefined without a key to check them by. */
  readonly tokens: Authenticate | undefined;
  readonly tickets: TicketOffice;
  readonly database: (() => Promise<unknown>) | undefined;
  readonly shutdown: Shutdown;
  /** Routes of the demo; an empty app in production. */
  readonly pages: Elysia;
  readonly version: string;
  readonly tryRules: () => Promise<RulesTrial>;
}

/** Bun's timers move in steps of 4 seconds, and a silent socket is pinged after 8 at the earliest. */
export function heartbeatInForce(heartbeatSeconds: number): number {
  return Math.max(8, Math.ceil(heartbeatSeconds / 4) * 4);
}

/** Seconds of silence after which Bun closes a socket: it pings 8 seconds earlier, or 16 for longer timeouts. */
function idleTimeoutFor(heartbeatSeconds: number): number {
  const heartbeat = heartbeatInForce(heartbeatSeconds);
  return heartbeat + (heartbeat < 16 ? 8 : 16);
}

export function createServer(parts: ServerParts): Elysia {
  const { settings, hub, sessions, subscribing, failures, limits, access, clock, metrics, shutdown } = parts;
  const isShuttingDown = () => shutdown.started;
  const origins = new Origins(settings.allowedOrigins);
  const app = new Elysia({
    // A slash at the end is another path: a proxy that forbids or limits one by its name would let the other pass.
    strictPath: true,
    // Host names of one to three letters, as containers have them, break the router's shortcut.
    handler: { standardHostname: false },
    websocket: {
      maxPayloadLength: settings.maxMessageBytes,
      backpressureLimit: settings.maxBufferedBytes,
      closeOnBackpressureLimit: true,
      idleTimeout: idleTimeoutFor(settings.heartbeat),
      sendPings: true,
      perMessageDeflate: false,
    },
    serve: {
      // Two servers on one port would silently share its connections: only workers of one server may.
      reusePort: settings.workers > 1,
      hostname: settings.host,
      // Trickled bytes do not prolong it. It counts for a body and for each further head; for the first head of a
      // connection the runtime has 12 seconds of its own.
      idleTimeout: settings.requestTimeout,
      // Past this the connection is cut without a word; below, a body that is too large is told so.
      maxRequestBodySize: Math.max(1 << 20, settings.maxMessageBytes * 2),
    },
  });
  const peerOf = (request: Request) => app.server?.requestIP(request)?.address;
  const addressOf = limitsAddresses(settings) ? addressReader(peerOf, settings.trustedProxies) : undefined;
  // Before the general answers to errors: the demo's are more telling.
  app.use(parts.pages);
  app.use(
    httpErrors({
      expected: (error) => failures.expected(error),
      headers: (request) => origins.apiHeaders(request),
    }),
  );
  app.use(
    realtimeRoutes({
      sessions,
      subscribing,
      clock,
      events: parts.events,
      admission: new Admission({
        sessions,
        limits,
        observer: metrics,
        failures,
        authenticate: parts.authenticate,
        origins,
        connectionsMax: settings.maxConnections,
        isShuttingDown,
        addressOf,
      }),
      origins,
      retryMs: settings.sseRetry,
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
      takesTokens: parts.tokens !== undefined,
    });
    const { tickets, tokens } = parts;
    const ticketing = ticketRoutes({ tickets, serverAccess, origins, tokens, isClosed: isShuttingDown });
    const api = apiRoutes({
      hub,
      messageBytesMax: settings.maxMessageBytes,
      cluster: parts.cluster,
      serverAccess,
      isClosed: isShuttingDown,
    });
    const rights = rightsRoutes({
      cluster: parts.cluster,
      serverAccess,
      tryRules: parts.tryRules,
    });
    app
      .use(new Elysia({ name: 'sobranie-calls' }).use(apiOrigins(origins)).use(api).use(rights).use(ticketing))
      .use(swaggerRoutes(parts.version));
  }
  app.use(
    operationsRoutes({
      ready: () => readyChecks({ adapter: parts.adapter, database: parts.database, isDraining: isShuttingDown }),
      live: () => ({ process: { ok: true } }),
      metrics: () => parts.metrics.render(),
    }),
  );
  return app;
}
