// A server for the tests of applications: in the test's own process, in memory, on a free port of this machine, there in
// milliseconds. It is the server that runs in production, with a clock that can be moved and connections that can be cut.

import { Backend, signToken, type TokenClaims } from '@sobranie/server';
import { startNode } from '../app/compose.ts';
import { createLogger } from '../app/logger.ts';
import { randomId, systemClock } from '../time/clock.ts';
import { SettingsError } from '../settings/settings.ts';
import type { GuestOptions } from './guest-options.ts';
import { readOptions, singleProcessEngine } from './options.ts';
import { TestClock } from './test-clock.ts';

export interface TestServerOptions extends GuestOptions {
  /** Watches the tables of this PostgreSQL database. Default: there is none, and the server starts at once. */
  readonly databaseUrl?: string;
}

/** Everything, everywhere: what a test's token grants unless told otherwise. */
const everything = { '*': ['subscribe', 'publish', 'history', 'presence'] } as const;

/** What a test server has in hand. */
interface TestServerParts {
  readonly url: string;
  readonly apiKey: string;
  readonly secret: string;
  /** Unix milliseconds. */
  readonly now: () => number;
  /** Of this user, or of all. */
  readonly connectionsOf: (user: string | undefined) => readonly { cut(): void }[];
  readonly advance: (milliseconds: number) => void;
  readonly close: () => Promise<void>;
}

/** A running server, with the calls of a backend. `await using` closes it. */
export class TestServer extends Backend implements AsyncDisposable {
  /** Such as `http://127.0.0.1:40123`. */
  readonly url: string;
  /** For programs that call the server as backends. */
  readonly apiKey: string;
  readonly #parts: TestServerParts;

  /** Made by `startTestServer()`. */
  constructor(parts: TestServerParts) {
    super(parts.url, { apiKey: parts.apiKey });
    this.url = parts.url;
    this.apiKey = parts.apiKey;
    this.#parts = parts;
  }

  /**
   * A token of this user, with all rights to all channels unless `channels` says otherwise, and good for ten minutes
   * unless `seconds` does.
   *
   * @example
   * const client = new Sobranie(server.url, { token: () => server.token('ann') });
   */
  async token(user: string, { seconds = 600, ...claims }: TokenClaims & { seconds?: number } = {}): Promise<string> {
    const now = Math.floor(this.#parts.now() / 1_000);
    const dated = { iat: now, exp: now + seconds };
    return signToken({ channels: everything, ...claims, sub: user, ...dated }, { secret: this.#parts.secret });
  }

  /** How many clients are connected, or how many of one user. */
  connections(user?: string): number {
    return this.#parts.connectionsOf(user).length;
  }

  /**
   * Cuts connections as a network does, without a word to the clients: all of them, or those of one user. Answers how
   * many there were. Clients come back by themselves.
   *
   * @example
   * server.cutConnections('ann');
   */
  cutConnections(user?: string): number {
    const cut = this.#parts.connectionsOf(user);
    for (const connection of cut) connection.cut();
    return cut.length;
  }

  /**
   * Moves the server's time ahead: tokens and tickets end, history grows old, rates are forgotten. The clients' own
   * clocks stay as they are.
   *
   * @example
   * server.advanceTime(11 * 60_000);
   */
  advanceTime(milliseconds: number): void {
    if (!(milliseconds >= 0)) throw new RangeError(`Time goes ahead only: ${milliseconds}`);
    this.#parts.advance(milliseconds);
  }

  /** Ends the server and every connection at once. Again it does nothing. */
  async close(): Promise<void> {
    await this.#parts.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Starts a server for a test. Its rules are those that the server ships with, unless told otherwise, and nothing of the
 * environment counts. Clients need tokens, and backends a key, as in production.
 *
 * @throws SettingsError with every fault of the options
 * @example
 * await using server = await startTestServer();
 * await server.publish('news', { text: 'hello' });
 */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const { databaseUrl, settings: given = {} } = options;
  const keys = { apiKey: randomId(systemClock, 32), secret: randomId(systemClock, 48) };
  const own = {
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    SYNC: singleProcessEngine,
    API_KEY: keys.apiKey,
    JWT_SECRET: keys.secret,
    LOG_LEVEL: 'silent',
    ALLOWED_ORIGINS: '*',
    BROADCAST_INTERVAL: '0',
    ...(databaseUrl === undefined ? {} : { DATABASE_URL: databaseUrl }),
    ...given,
  };
  const { settings, rules } = readOptions({ ...options, settings: own });
  const clock = new TestClock();
  const log = createLogger({ level: settings.logLevel, format: settings.logFormat });
  const withoutDatabase = settings.databaseUrl === undefined;
  if (withoutDatabase && settings.sync !== singleProcessEngine) {
    throw new SettingsError([`SYNC=${settings.sync} needs a database: give databaseUrl, or leave SYNC away`]);
  }
  const node = await startNode(settings, log, { rules, clock, withoutDatabase, pages: false });
  return new TestServer({
    url: node.url,
    apiKey: own.API_KEY,
    secret: own.JWT_SECRET,
    now: () => clock.now(),
    connectionsOf: (user) => node.sessions.of(user).map(({ outlet }) => ({ cut: () => outlet.terminate() })),
    advance(milliseconds) {
      clock.advance(milliseconds);
      node.sweep();
    },
    close: () => node.shutdown.force(),
  });
}
