// What the tests of the wire share: a server per sync layer, clients that are cut after each test, and a look at the
// server's log at the end, in which no failure may stand that a client could cause.

import { createDatabase } from '../support/postgres.ts';
import { startRedis } from '../support/redis.ts';
import { afterAll, afterEach, describe, expect } from 'bun:test';
import { EventClient, WebSocketClient, type EventOptions, type WebSocketOptions } from '../support/clients.ts';
import { startServer, type Environment, type RunningServer } from '../support/process.ts';
import { TcpClient } from '../support/tcp-client.ts';

export interface WireEnvironment {
  readonly name: string;
  /** Positions outlive the process. */
  readonly durable: boolean;
  /** What a server needs to run over this sync layer; the same for all servers of one suite. */
  settings(): Promise<Environment>;
}

/** Every suite runs over each of these. */
export const environments: readonly WireEnvironment[] = [
  { name: 'memory', durable: false, settings: () => Promise.resolve({ SYNC: 'memory' }) },
  {
    name: 'postgres',
    durable: true,
    settings: async () => ({ SYNC: 'postgres', DATABASE_URL: (await createDatabase({ migrated: true })).url }),
  },
  // The same promises a third time: for the long form.
  ...(process.env['LONG'] === '1' ? [redisEnvironment()] : []),
];

function redisEnvironment(): WireEnvironment {
  return {
    name: 'redis',
    durable: true,
    settings: async () => {
      const [redis, database] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
      return { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url };
    },
  };
}

export function describeWire(topic: string, suite: (wire: Wire) => void): void {
  for (const environment of environments) {
    describe(`${topic}, SYNC=${environment.name}`, () => {
      const wire = new Wire(environment);
      afterEach(() => wire.cutClients());
      afterAll(() => wire.stopServers(), 60_000);
      suite(wire);
    });
  }
}

export class Wire {
  readonly environment: WireEnvironment;
  #settings: Promise<Environment> | undefined;
  readonly #servers = new Set<RunningServer>();
  #clients: { cut(): unknown }[] = [];
  #names = 0;

  constructor(environment: WireEnvironment) {
    this.environment = environment;
  }

  /** A server of its own. */
  async start(given: Environment = {}): Promise<RunningServer> {
    const settings = await (this.#settings ??= this.environment.settings());
    const quiet = {
      RATE_LIMIT_PER_MINUTE: '0',
      SUBSCRIBES_PER_MINUTE: '0',
      BROADCAST_INTERVAL: '0',
      SHUTDOWN_TIMEOUT: '0',
      LOG_FORMAT: 'json',
    };
    const server = await startServer({ ...quiet, ...settings, ...given });
    this.#servers.add(server);
    return server;
  }

  /** The one that tests use which need no special settings. */
  readonly server = this.shared({});

  /** One server with these settings, started when a test first asks for it. */
  shared(given: Environment): () => Promise<RunningServer> {
    let server: Promise<RunningServer> | undefined;
    return () => (server ??= this.start(given));
  }

  /** A name that no other test uses. */
  channel(prefix = 'room'): string {
    return `${prefix}:${process.pid}-${++this.#names}`;
  }

  async socket(server: RunningServer, options: WebSocketOptions = {}): Promise<WebSocketClient> {
    return this.#keep(await WebSocketClient.open(server.url, options));
  }

  /** A socket whose welcome is read and that is subscribed to these. */
  async subscriber(server: RunningServer, ...channels: string[]): Promise<WebSocketClient> {
    const socket = await this.socket(server);
    await socket.next('welcome');
    for (const channel of channels) await socket.request({ type: 'subscribe', channel });
    return socket;
  }

  async stream(server: RunningServer, options: EventOptions = {}): Promise<EventClient> {
    return this.#keep(await EventClient.open(server.url, options));
  }

  async tcp(server: RunningServer): Promise<TcpClient> {
    return this.#keep(await TcpClient.connect(server.url));
  }

  async cutClients(): Promise<void> {
    const clients = this.#clients;
    this.#clients = [];
    await Promise.all(clients.map((client) => client.cut()));
  }

  async stopServers(): Promise<void> {
    for (const server of this.#servers) {
      // Those that a test has ended answer with the same code again.
      await server.stop();
      expect(server.stdout() + server.stderr()).not.toMatch(
        /was not handled|was not caught|failed unexpectedly|"level":"fatal"/,
      );
    }
  }

  /** One that a test ends by force. */
  forget(server: RunningServer): void {
    this.#servers.delete(server);
  }

  #keep<T extends { cut(): unknown }>(client: T): T {
    this.#clients.push(client);
    return client;
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The text as JSON, if it is. */
  readonly body: unknown;
}

export async function call(server: RunningServer, path: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(server.url + path, { signal: AbortSignal.timeout(10_000), ...init });
  const text = await response.text();
  const json = (response.headers.get('content-type') ?? '').startsWith('application/json');
  return {
    status: response.status,
    headers: response.headers,
    text,
    body: json && text !== '' ? JSON.parse(text) : undefined,
  };
}

export function post(
  server: RunningServer,
  path: string,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  return call(server, path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

export interface Published {
  readonly channel: string;
  readonly epoch: string;
  readonly offset: number;
}

/** Publishes over HTTP and answers where it came to stand. */
export async function publish(server: RunningServer, channel: string, data: unknown): Promise<Published> {
  const answer = await post(server, '/realtime/publish', { channel, data });
  expect(answer.text).toContain(`"channel":"${channel}"`);
  return answer.body as Published;
}

export async function publishMany(server: RunningServer, channel: string, count: number, from = 1): Promise<Published> {
  const socket = await WebSocketClient.open(server.url);
  for (let index = 0; index < count; index++) {
    socket.send({ type: 'publish', channel, data: from + index, id: index });
  }
  let last: Published | undefined;
  for (let index = 0; index < count; index++) last = (await socket.next('published')) as unknown as Published;
  await socket.close();
  if (last === undefined) throw new Error('nothing was published');
  return last;
}

/** The metrics' samples as `name{labels}` → value. */
export async function samples(server: RunningServer): Promise<Map<string, number>> {
  const { text } = await call(server, '/metrics');
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

/** The sum over all labels. */
export async function sample(server: RunningServer, name: string): Promise<number> {
  let sum = 0;
  for (const [key, value] of await samples(server)) if (key === name || key.startsWith(`${name}{`)) sum += value;
  return sum;
}

/** The error body that every refused request has. */
export function errorOf(text: string): { code: string; message: string; retryable: boolean } {
  const { error } = JSON.parse(text) as { error: { code: string; message: string; retryable: boolean } };
  expect(error.message.length).toBeGreaterThan(10);
  return error;
}
