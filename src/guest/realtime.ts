// `new Elysia().use(realtime())`: the server inside an application. The app gets the same routes, and its process the hub
// and the sync layer behind them. The app listens, and stops; both are its own.
//
//   1. `realtime()` checks its options and throws what is wrong with them
//   2. `use` mounts the routes, which hand requests to the node, and sets how the app's server keeps WebSockets
//   3. `listen`, the first request or the first call starts the node; requests wait until it is up
//   4. `stop` drains: every client is told when to leave, then the app's server stops

import type { Elysia } from 'elysia';
import { Backend, type BackendOptions } from '@sobranie/server';
import { swaggerFolder } from '../api/swagger.ts';
import { hasConsole, startNode } from '../app/compose.ts';
import { createLogger } from '../app/logger.ts';
import { websocketOptions } from '../app/server.ts';
import { SettingsError } from '../settings/settings.ts';
import { randomId, systemClock } from '../time/clock.ts';
import type { GuestOptions } from './guest-options.ts';
import { Life } from './life.ts';
import { readOptions, singleProcessEngine } from './options.ts';
import type { RealtimeRoutes } from './routes.ts';

export interface RealtimeOptions extends GuestOptions {
  /** `'none'`: no table is watched and no rows are read, with `SYNC=memory` alone. Default: as the settings say. */
  readonly database?: 'none';
  /** Also mounts `/health/live`, `/health/started`, `/health/ready` and `/metrics`. Default: true. */
  readonly operations?: boolean;
  /** Also mounts `/console`, which takes the `ADMIN_KEY` alone. Default: outside production, and where that is set. */
  readonly console?: boolean;
  /** Also mounts `/swagger`, the documentation of these routes. Needs the package `swagger-ui-dist`. Default: false. */
  readonly swagger?: boolean;
}

export type { GuestOptions } from './guest-options.ts';
export type { Failure, Frame, HealthAnswer, RealtimeRoutes, StreamEvent } from './routes.ts';
export type * from '../rules/config.ts';

/** The node behind the routes. */
interface NodeLife {
  start(): Promise<{ readonly database: { readonly givenUrl: string } | undefined }>;
  stop(force: boolean): Promise<void>;
}

/** What `app.decorator.realtime` is: the calls of a backend, carried out in this process, and the node's life. */
export class Realtime extends Backend {
  readonly #life: NodeLife;

  /** Made by `realtime()`. */
  constructor(life: NodeLife, options: BackendOptions) {
    super('http://localhost', options);
    this.#life = life;
  }

  /**
   * Starts the node if nothing has yet, and resolves once it is up. Rejects with what is wrong; a database that is away
   * is waited for.
   *
   * @example
   * await app.decorator.realtime.ready();
   */
  async ready(): Promise<void> {
    await this.#life.start();
  }

  /**
   * Where the node's database is, for the app's own driver: `DATABASE_URL`, or the URL of the embedded one, password
   * included. Starts the node as `ready()` does. Rejects where there is none.
   *
   * @example
   * const url = await app.decorator.realtime.databaseUrl();
   */
  async databaseUrl(): Promise<string> {
    const { database } = await this.#life.start();
    if (database === undefined) throw new Error("there is no database: realtime() was given database: 'none'");
    return database.givenUrl;
  }

  /**
   * Tells every client when to leave, waits for that and closes the node. `app.stop()` calls it. With `force` nobody is
   * waited for: clients reconnect at once.
   *
   * @example
   * await app.decorator.realtime.stop({ force: true });
   */
  async stop({ force = false }: { readonly force?: boolean } = {}): Promise<void> {
    await this.#life.stop(force);
  }
}

/** An app with the routes of `realtime()`. */
export type WithRealtime = Elysia<
  '',
  { decorator: { realtime: Realtime }; store: {}; derive: {}; resolve: {} },
  { typebox: {}; error: {} },
  { schema: {}; standaloneSchema: {}; macro: {}; macroFn: {}; parser: {}; response: {} },
  RealtimeRoutes
>;

/**
 * The server as a part of an Elysia app: `use` it on the app that listens.
 *
 * @throws SettingsError with every fault of the options
 * @example
 * const app = new Elysia().use(realtime({ settings: { DATABASE_URL, JWT_SECRET } })).listen(3000);
 * await app.decorator.realtime.publish('news', { text: 'hello' });
 */
export function realtime(options: RealtimeOptions = {}): (app: Elysia) => WithRealtime {
  const { settings: read, rules } = readOptions(
    options,
    options.database === 'none' ? { SYNC: singleProcessEngine } : {},
  );
  // Calls of this process authenticate as any backend's. Without a key in the settings nobody else has one.
  const settings = { ...read, workers: 1, apiKey: read.apiKey ?? randomId(systemClock, 32) };
  const { operations = true, console = hasConsole(settings), swagger = false } = options;
  if (swagger && swaggerFolder() === undefined) {
    throw new SettingsError(['swagger: the package swagger-ui-dist is not installed, which its page needs']);
  }
  const log = createLogger({ level: settings.logLevel, format: settings.logFormat, node: settings.nodeId });
  const life: Life = new Life(() =>
    startNode(settings, log, {
      rules,
      withoutDatabase: options.database === 'none',
      host: { drain: () => void life.stop(false), console, swagger },
    }),
  );
  let root: Elysia | undefined;
  const calls = new Realtime(life, {
    apiKey: settings.apiKey,
    fetch: (request) => life.handle(request, root?.server ?? null),
  });
  return (app) => {
    if (root !== undefined) throw new Error('realtime() was used twice: each app needs one of its own');
    root = app;
    app.config.websocket = { ...app.config.websocket, ...websocketOptions(settings) };
    drainBeforeStop(app, life);
    app.onStart((listening) => {
      if (listening !== app) throw new Error('realtime() belongs to the app that listens, not to a part of it');
      void life.start().catch((error: unknown) => log.fatal({ err: error }, 'realtime could not start'));
    });
    const paths = [
      '/realtime/*',
      ...(operations ? ['/health/*', '/metrics'] : []),
      ...(console ? ['/console', '/console/*'] : []),
      ...(swagger ? ['/swagger', '/swagger/*'] : []),
    ];
    for (const path of paths) {
      app.all(path, ({ request, server }) => life.handle(request, server), { parse: 'none', detail: { hide: true } });
    }
    return app.decorate('realtime', calls) as unknown as WithRealtime;
  };
}

/** The app's own `stop` waits for open connections: without a drain, for as long as clients like to stay. */
function drainBeforeStop(app: Elysia, life: Life): void {
  const stop = app.stop;
  app.stop = async (closeActiveConnections?: boolean) => {
    await life.stop(closeActiveConnections === true);
    return stop(closeActiveConnections);
  };
}
