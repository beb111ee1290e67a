// Runs the examples of the docstrings, one after the other, against a real server over the database that it is given. Each
// has what it takes for granted: a client, a backend, an app, and functions of the application, which note that they were
// called. Prints a line of JSON for each; its own process, for it needs a document and leaves connections open.

import { GlobalRegistrator } from '@happy-dom/global-registrator';
import { createCollection } from '@tanstack/db';
import { Elysia } from 'elysia';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import postgres from 'postgres';
import { createElement } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { liveTable, Sobranie, SobranieError, type Change } from '@sobranie/client';
import { useChannel, useConnection, useLiveTable, usePresence, useTable } from '@sobranie/react';
import { Backend, BackendError, send, signToken, unwatch, verifyHook, watch, type Query } from '@sobranie/server';
import { realtime } from '@sobranie/server/elysia';
import { startTestServer, type TestServer } from '@sobranie/server/testing';
import { sobranieCollection } from '@sobranie/tanstack-db';
import { within } from '../../src/time/within.ts';
import { items, type Item } from '../support/docstrings.ts';

interface Order {
  readonly id: number;
  readonly status: string;
}

type Client = Sobranie<{ orders: Change<Order>; 'chat:*': unknown; posts: unknown }>;

interface Stage {
  readonly server: TestServer;
  readonly client: Client;
  readonly sql: postgres.Sql;
  /** Resolves with the arguments of the first call of this function of the application that fits. */
  called(name: string, fits?: (...args: never[]) => boolean): Promise<unknown[]>;
  /** Resolves when somebody subscribes to the channel. */
  heard(channel: string): Promise<void>;
}

/** Functions of the application. */
const functions = ['show', 'showNames', 'showOffline', 'showReadOnly', 'render', 'apply', 'add', 'reload', 'log'];
const secret = 'the-secret-of-the-hooks-0123456789';
const order: Order = { id: 1, status: 'new' };
/** A machine with a dozen processes for each core takes its time. */
const limitMs = 60_000;

const [databaseUrl = ''] = process.argv.slice(2);
const sql = postgres(databaseUrl, { onnotice: () => undefined });
await sql`create table orders (id int primary key, customer_id int not null default 7, status text not null)`;
const server = await startTestServer({
  databaseUrl,
  settings: { SYNC: 'postgres' },
  rules: [
    { channels: 'orders', recoverable: true, snapshot: ({ sql: database }) => database`select * from orders` },
    { channels: '*', recoverable: true },
  ],
});
const folder = mkdtempSync(join(tmpdir(), 'sobranie-examples-'));

/** What the test does while an example runs, and what must come of it. The others must end by themselves. */
const effects: Readonly<Record<string, (stage: Stage) => Promise<unknown>>> = {
  'channel.ts subscribe': heardIn('chat:42', 'show'),
  'channel.ts events': heardIn('posts', 'show'),
  'channel.ts [Symbol.asyncIterator]': heardIn('posts', 'apply'),
  'errors.ts SobranieError': ({ called }) => called('showReadOnly'),
  'live-table.ts liveTable': shownIn('render'),
  'live-table.ts subscribe': shownIn('render'),
  'live-table.ts put': ({ called }) => called('api.send', (id: number) => id === order.id),
  'presence.ts subscribe': async ({ server: { url }, client, called }) => {
    const other = new Sobranie(url, { token: () => server.token('bob') });
    other.channel('chat:42').presence.enter();
    await called('showNames', (members: readonly { readonly user: string }[]) => members.some(isBob));
    other.close();
    client.close();
  },
  'presence.ts enter': async ({ client }) => {
    await until(async () => (await server.presence('chat:42')).count === 1);
    client.close();
  },
  'sobranie.ts Sobranie': async ({ called, heard }) => {
    await heard('chat:42');
    await server.publish('chat:42', { text: 'hello' });
    await called('log', (text: unknown) => text === 'hello');
  },
  'sobranie.ts on': async ({ client, called }) => {
    client.reconnect();
    await called('showOffline', (isOffline: boolean) => !isOffline);
  },
  'index.ts useLiveTable': ({ heard }) => heard('orders'),
  'index.ts useTable': ({ heard }) => heard('orders'),
  'index.ts useChannel': heardIn('chat:7', 'add'),
  'index.ts usePresence': () => until(async () => (await server.presence('orders')).count === 1),
  'index.ts useConnection': async ({ client }) => {
    client.connect();
    await until(() => client.status.state === 'connected');
  },
  'hook.ts verifyHook': ({ called }) => called('log', (event: unknown) => event === 'user.online'),
  'sql.ts watch': async ({ sql: database }) => {
    await until(async () => {
      await database`update orders set status = 'sent'`;
      return (await server.history('orders:7')).messages.length > 0;
    });
  },
  'sql.ts unwatch': ({ sql: database }) =>
    until(async () => (await database`select from realtime.watches where "table" = 'orders'::regclass`).length === 0),
  'sql.ts send': () => until(async () => lastOf((await server.history('chat:42')).messages)?.['text'] === 'hello'),
};

function isBob({ user }: { readonly user: string | null }): boolean {
  return user === 'bob';
}

function lastOf(messages: readonly { readonly data: unknown }[]): Record<string, unknown> | undefined {
  return messages.at(-1)?.data as Record<string, unknown> | undefined;
}

/** What is published reaches this function. */
function heardIn(channel: string, name: string): (stage: Stage) => Promise<unknown> {
  return async ({ called, heard }) => {
    await heard(channel);
    await server.publish(channel, { text: 'heard' });
    return called(name, (event: unknown) => JSON.stringify(event).includes('heard'));
  };
}

/** The rows of the database reach this function. */
function shownIn(name: string): (stage: Stage) => Promise<unknown> {
  return ({ called }) => called(name, (rows: readonly Order[]) => rows.some(({ id }) => id === order.id));
}

async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await Bun.sleep(10);
}

async function run(item: Item, example: string): Promise<void> {
  const key = `${basename(item.file)} ${item.name}`;
  if (/live-table|sql|react|tanstack/.test(item.file)) {
    await sql`truncate orders`;
    await sql`insert into orders ${sql(order)}`;
    await sql`select realtime.watch('orders')`;
  }
  const calls: { readonly name: string; readonly args: unknown[] }[] = [];
  const rights = key === 'errors.ts SobranieError' ? ({ 'chat:*': ['subscribe'] } as const) : undefined;
  const token = (): Promise<string> => server.token('ann', rights && { channels: rights });
  const client: Client = new Sobranie(server.url, { token, backoffMs: [10, 50] });
  const connection = await connectionOf(client);
  const note =
    (name: string) =>
    (...args: unknown[]): void =>
      void calls.push({ name, args });
  const app = item.file.endsWith('/realtime.ts')
    ? new Elysia().use(realtime({ settings: quiet })).listen(0)
    : undefined;
  const orders = liveTable(client, 'orders', { key: 'id' });
  const scope = {
    ...{ liveTable, Sobranie, SobranieError, useChannel, useConnection, useLiveTable, usePresence, useTable },
    ...{ sobranieCollection, createCollection, Elysia, realtime, startTestServer },
    ...{ Backend, BackendError, send, signToken, unwatch, verifyHook, watch },
    ...{ server, client, orders, app, connection, order, secret, apiKey: server.apiKey, later: [], room: 7 },
    ...Object.fromEntries(functions.map((name) => [name, note(name)])),
    ...{ DATABASE_URL: databaseUrl, JWT_SECRET: secret },
    backend: new Backend(server.url, { apiKey: server.apiKey }),
    console: { log: note('log') },
    api: { send: async (id: number) => note('api.send')(id) },
    database: { query: ({ text, values }: Query) => sql.unsafe(text, values as never[]) },
    fetch: async (url: string) => (url === '/token' ? new Response(await token()) : fetch(url)),
    request: await signedRequest(),
  };
  const path = join(folder, `${crypto.randomUUID()}.ts`);
  const here = example.replace(/https:\/\/(live\.)?example\.com/, server.url).replace('.listen(3000)', '.listen(0)');
  await Bun.write(
    path,
    `export default async ({ ${Object.keys(scope).join(', ')} }: any): Promise<void> => { {\n${here}\n} };`,
  );
  const { default: perform } = (await import(path)) as { default: (given: typeof scope) => Promise<void> };
  const stage: Stage = {
    ...{ server, client, sql },
    async called(name, fits = () => true) {
      for (;;) {
        const call = calls.find((each) => each.name === name && fits(...(each.args as never[])));
        if (call !== undefined) return call.args;
        await Bun.sleep(10);
      }
    },
    heard: (channel) =>
      until(async () => (await server.channels()).some((each) => each.channel === channel && each.subscribers > 0)),
  };
  const effect = effects[key]?.(stage);
  const isOver = item.file.includes('react') ? rendered(() => perform(scope)) : perform(scope);
  try {
    // Where there is an effect it is waited for; not for the example, which may listen for ever.
    await within(effect === undefined ? isOver : Promise.race([effect, failureOf(isOver)]), limitMs, key);
  } finally {
    client.close();
    await app?.stop(true);
    root?.unmount();
    root = undefined;
  }
}

let root: Root | undefined;

/** As a component does, with each rendering. Rejects with what the first one throws; it never resolves. */
function rendered(perform: () => Promise<void>): Promise<void> {
  return new Promise((_resolve, reject) => {
    const Component = (): null => {
      perform().catch(reject);
      return null;
    };
    root = createRoot(happyDocument().createElement('div'));
    root.render(createElement(Component));
  });
}

function happyDocument(): { createElement(name: string): Element } {
  return (globalThis as unknown as { document: ReturnType<typeof happyDocument> }).document;
}

function failureOf(promise: Promise<void>): Promise<never> {
  return new Promise((_resolve, reject) => void promise.catch(reject));
}

async function connectionOf(client: Client): Promise<string> {
  client.connect();
  await until(() => client.status.state === 'connected');
  return client.status.connection ?? '';
}

async function signedRequest(): Promise<Request> {
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const body = JSON.stringify({ events: [{ id: '1', event: 'user.online', user: 'ann', at: Date.now() }] });
  const digest = new Bun.CryptoHasher('sha256', secret).update(`${timestamp}.${body}`).digest('hex');
  return new Request('http://localhost/hook', {
    method: 'POST',
    body,
    headers: { 'x-sobranie-timestamp': timestamp, 'x-sobranie-signature': `sha256=${digest}` },
  });
}

const quiet = { DATABASE_URL: databaseUrl, JWT_SECRET: secret, LOG_LEVEL: 'silent', SHUTDOWN_TIMEOUT: '0' };
for (const item of items) {
  if (item.example === undefined) continue;
  if (item.file.includes('react') && !GlobalRegistrator.isRegistered) {
    // The document alone: the runtime's own fetch and WebSocket reach the server.
    const { fetch: own, WebSocket, Request, Response, Headers, AbortController, AbortSignal } = globalThis;
    GlobalRegistrator.register();
    Object.assign(globalThis, { fetch: own, WebSocket, Request, Response, Headers, AbortController, AbortSignal });
  }
  const failure = await run(item, item.example).then(
    () => undefined,
    (error: unknown) => Bun.inspect(error),
  );
  console.log(JSON.stringify({ example: `${item.file}: ${item.name}`, failure }));
}
rmSync(folder, { recursive: true, force: true });
process.exit(0);
