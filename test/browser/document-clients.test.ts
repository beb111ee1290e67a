// The clients of the documents, the examples and the demo page on a link that dies without a word, and with tokens that
// end. They waited for minutes, as nothing closes such a link, and came back with the token that had ended.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import postgres, { type Sql } from 'postgres';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { readDocument } from '../support/documents.ts';
import { createDatabase, freePort } from '../support/postgres.ts';
import { spawnScript, startServer, type RunningProcess, type RunningServer } from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { nowSeconds, secret, tokenOf } from '../support/tokens.ts';
import { patient } from '../support/patience.ts';

patient();

const backInMs = 60_000;
const apiKey = 'the-key-of-the-backend-0123456789';
const claims = { sub: '7', channels: { '*': ['subscribe'] } };
/** Seconds until the tokens end with which clients begin. */
const shortSeconds = 12;

/** A program or a page, and all that it printed so far. */
interface Client {
  readonly name: string;
  /** The channel that it follows. */
  readonly channel: string;
  printed(): string;
}

let rules: TestRules;
let server: RunningServer;
let sql: Sql;
let browser: TestBrowser;
/** Of links that die, and of links that stand. */
let forgetful: Proxy;
let steady: Proxy;
const processes: RunningProcess[] = [];

beforeAll(async () => {
  const { url } = await createDatabase({ migrated: true });
  sql = postgres(url, { max: 1, onnotice: () => undefined });
  rules = new TestRules(
    `{ channels: 'flaky:*', allow: { subscribe: 'authorize' }, authorize: asked },
     { channels: '*', allow: { subscribe: 'everyone' } }`,
    { '*': 'yes' },
    'authorize: { cacheSeconds: 0 }',
  );
  const settings = { DATABASE_URL: url, CONFIG_FILE: rules.path, JWT_SECRET: secret, API_KEY: apiKey };
  [server, browser] = await Promise.all([
    startServer({ ...settings, ALLOW_ANONYMOUS: 'true', BROADCAST_INTERVAL: '0', SHUTDOWN_TIMEOUT: '0' }, 30_000),
    launchBrowser(),
  ]);
  [forgetful, steady] = await Promise.all([startProxy({ port: server.port }), startProxy({ port: server.port })]);
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await Promise.all(processes.map((each) => each.kill9()));
  await Promise.all([forgetful?.close(), steady?.close()]);
  await server?.stop();
  await sql?.end({ timeout: 1 });
}, 60_000);

/** The first block of a document that holds the text. */
function blockOf(path: string, text: string): string {
  const found = readDocument(path).blocks.find((block) => block.text.includes(text));
  if (found === undefined) throw new Error(`${path} has no ${text}`);
  return found.text;
}

/** Without its last line, which uses it. */
const followSource = (): string => blockOf('src/protocol/PROTOCOL.md', 'function follow(').replace(/^follow\(.*$/m, '');

/** As a page of the server's own runs them; each answers a fresh token at /token, and has one in its cookie. */
const pageClients: readonly { name: string; channel: string; source: (host: string) => string }[] = [
  {
    name: 'PROTOCOL.md, WebSocket',
    channel: 'chat:doc',
    source: (host) => `${blockOf('src/protocol/PROTOCOL.md', 'function connect(')}
      const token = async () => (await fetch('/token')).text();
      connect({ url: 'ws://${host}/realtime/ws', channels: ['chat:doc', 'flaky:doc'], on: print, token });`,
  },
  {
    name: 'PROTOCOL.md, EventSource',
    channel: 'posts',
    source: () => `${followSource()}
      const token = async () => (await fetch('/token')).text();
      follow({ url: '/realtime/events?channels=posts,chat:42', on: print, token });`,
  },
  {
    name: 'README.md, WebSocket',
    channel: 'customer:7',
    source: (host) =>
      blockOf('README.md', 'new WebSocket(')
        .replace('localhost:3000', host)
        .replace(`'eyJ…'`, `await (await fetch('/token')).text()`),
  },
  { name: 'README.md, EventSource', channel: 'posts', source: () => blockOf('README.md', 'new EventSource(') },
  {
    name: 'docs/access.md, tickets',
    channel: 'posts',
    source: () => `${followSource()} ${blockOf('docs/access.md', "'/realtime/ticket'")}`,
  },
];

/** Tokens end soon at first, and last from then on. */
async function freshToken(short: boolean): Promise<string> {
  return tokenOf(claims, nowSeconds() + (short ? shortSeconds : 3_600));
}

async function openPage(proxy: Proxy, path: string, short: boolean): Promise<{ page: Page; printed: () => string }> {
  const { page } = await browser.newPage({ bypassCSP: true });
  const lines: string[] = [];
  page.on('console', (message) => lines.push(message.text()));
  page.on('pageerror', (error) => lines.push(String(error)));
  const origin = `http://127.0.0.1:${proxy.port}`;
  const setCookie = async (soon: boolean): Promise<void> => {
    await page.context().addCookies([{ name: 'sobranie_token', value: await freshToken(soon), url: origin }]);
  };
  await setCookie(short);
  // The application signs its user in again before the session ends.
  if (short) setTimeout(() => void setCookie(false), (shortSeconds - 3) * 1_000);
  let asked = 0;
  await page.route('**/token', async (route) => route.fulfill({ body: await freshToken(short && asked++ === 0) }));
  await page.goto(origin + path);
  return { page, printed: () => lines.join('\n') };
}

async function startInPage(proxy: Proxy, short: boolean): Promise<Client[]> {
  return Promise.all(
    pageClients.map(async ({ name, channel, source }) => {
      const { page, printed } = await openPage(proxy, '/health/live', short);
      const text = source(`127.0.0.1:${proxy.port}`);
      await page.evaluate(`{ const print = (frame) => console.log(JSON.stringify(frame)); ${text} }`);
      return { name, channel, printed };
    }),
  );
}

/** Programs of examples/: the one for Bun, and the one that serves a page, which follows the stream through it. */
async function startExamples(proxy: Proxy): Promise<Client[]> {
  const url = `http://127.0.0.1:${proxy.port}`;
  const folder = join(import.meta.dir, '../../examples');
  const socket = spawnScript(join(folder, 'client-websocket.ts'), {}, [
    'posts',
    `${url.replace('http', 'ws')}/realtime/ws`,
  ]);
  const port = await freePort();
  const stream = spawnScript(join(folder, 'client-eventsource.ts'), {}, ['posts', String(port), url]);
  processes.push(socket, stream);
  await stream.waitForOutput(/open http/);
  const { page } = await browser.newPage();
  await page.goto(`http://127.0.0.1:${port}/`);
  let shown = '';
  const look = async (): Promise<void> => {
    shown = await page
      .locator('#log')
      .innerText()
      .catch(() => shown);
  };
  const timer = setInterval(() => void look(), 200);
  page.once('close', () => clearInterval(timer));
  return [
    { name: 'examples/client-websocket.ts', channel: 'posts', printed: () => socket.stdout() },
    { name: 'examples/client-eventsource.ts', channel: 'posts', printed: () => shown },
  ];
}

async function publish(channel: string, data: string): Promise<void> {
  const headers = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' };
  const body = JSON.stringify({ channel, data });
  expect((await fetch(`${server.url}/realtime/publish`, { method: 'POST', headers, body })).status).toBe(200);
}

/** Published to each client's channel; resolves when all have printed it. */
async function arrives(clients: readonly Client[], data: string, timeoutMs: number): Promise<void> {
  for (const channel of new Set(clients.map((client) => client.channel))) await publish(channel, data);
  const missing = (): string[] => clients.filter(({ printed }) => !printed().includes(data)).map(({ name }) => name);
  await until(
    () => missing().length === 0,
    () => `nothing of "${data}" from: ${missing().join('; ')}`,
    timeoutMs,
  );
}

/** Follows by itself when it is ready: what is published until then is not for it. */
async function areReady(clients: readonly Client[]): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await arrives(clients, `ready ${attempt}`, 1_000);
      return;
    } catch (error) {
      if (attempt === 15) throw error;
    }
  }
}

// Each takes about as long as a client needs to notice, so they go on beside each other.
describe('back within 60 s', () => {
  test.concurrent(
    'after a link that died without a word, and with a fresh token after one that ended',
    async () => {
      const [dying, ending] = await Promise.all([
        Promise.all([startInPage(forgetful, false), startExamples(forgetful)]).then((all) => all.flat()),
        startInPage(steady, true),
      ]);
      const startedAt = performance.now();
      await areReady([...dying, ...ending]);
      expect(forgetful.swallow()).toBeGreaterThanOrEqual(dying.length);
      const dead = arrives(dying, 'after a dead link', backInMs);
      const ended = (async () => {
        await until(() => performance.now() - startedAt > (shortSeconds + 2) * 1_000, 'tokens have ended', 30_000);
        await arrives(ending, 'after the token', backInMs);
      })();
      await Promise.all([dead, ended]);
      // Nothing was missed, and nothing came twice.
      for (const { name, printed } of [...dying, ...ending]) {
        const text = printed();
        expect([name, /missing|"gap"/.test(text)]).toEqual([name, false]);
        for (const data of ['after a dead link', 'after the token']) {
          expect([name, data, text.split(data).length - 1 > 1]).toEqual([name, data, false]);
        }
      }
    },
    150_000,
  );

  test.concurrent(
    'the demo page too, over both transports',
    async () => {
      const proxy = await startProxy({ port: server.port });
      const dying = await openPage(proxy, '/', false);
      const ending = await openPage(steady, '/', true);
      const live = async ({ page }: { page: Page }): Promise<void> => {
        for (const column of ['#socket', '#stream']) {
          await page.locator(`${column} .badge[data-state=live]`).waitFor({ timeout: 20_000 });
        }
      };
      await Promise.all([live(dying), live(ending)]);
      const startedAt = performance.now();
      const shows = async ({ page }: { page: Page }, title: string): Promise<void> => {
        for (const column of ['#socket', '#stream']) {
          const text = page.locator(`${column} li .title`).getByText(title, { exact: true });
          await text.waitFor({ timeout: backInMs });
        }
      };
      proxy.swallow();
      await sql`INSERT INTO public.posts (title) VALUES ('a row over a dead link')`;
      const dead = shows(dying, 'a row over a dead link');
      const ended = (async () => {
        await until(() => performance.now() - startedAt > (shortSeconds + 2) * 1_000, 'tokens have ended', 30_000);
        await sql`INSERT INTO public.posts (title) VALUES ('a row past the token')`;
        await shows(ending, 'a row past the token');
      })();
      await Promise.all([dead, ended]);
      await proxy.close();
    },
    150_000,
  );
});

test.concurrent(
  'what was refused for the moment is asked for again',
  async () => {
    rules.tell({ '*': 'throws' });
    const { page, printed } = await openPage(steady, '/health/live', false);
    const [client] = pageClients;
    const source = client!.source(`127.0.0.1:${steady.port}`);
    await page.evaluate(`{ const print = (frame) => console.log(JSON.stringify(frame)); ${source} }`);
    await until(() => printed().includes('"unavailable"'), 'it is refused', 10_000);
    rules.tell({ '*': 'yes' });
    await until(() => /"type":"subscribed","channel":"flaky:doc"/.test(printed()), 'it is subscribed', 20_000);
    await page.close();
  },
  60_000,
);
