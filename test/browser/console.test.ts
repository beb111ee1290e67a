// The console in a real browser: nothing without the key, then what the server knows, tails, publishing, disconnecting.
// And both pages of the server by the rules of accessibility, light and dark, wide and on a phone.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import type { Page } from 'playwright-core';
import postgres from 'postgres';
import { Sobranie } from '@sobranie/client';
import { Backend, signToken, watch } from '@sobranie/server';
import { faultsOf, launchBrowser, type TestBrowser, type WatchedPage } from '../support/browser.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { secret } from '../support/tokens.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
const adminKey = 'the-key-of-the-operator-0123456789';
const everything = { '*': ['subscribe', 'publish', 'history', 'presence'] } as const;
let database: TestDatabase;
let server: RunningServer;
let browser: TestBrowser;
let backend: Backend;

beforeAll(async () => {
  [database, browser] = await Promise.all([createDatabase({ migrated: true }), launchBrowser()]);
  const sql = postgres(database.url, { max: 1, onnotice: () => undefined });
  await sql`create table orders (id int primary key, note text)`;
  const { text, values } = watch('orders', { channels: ['orders', 'orders:{id}'], columns: ['id'] });
  await sql.unsafe(text, values as string[]);
  await sql.end({ timeout: 1 });
  const settings = { DATABASE_URL: database.url, JWT_SECRET: secret, API_KEY: apiKey, ADMIN_KEY: adminKey };
  server = await startServer({ ...settings, SHUTDOWN_TIMEOUT: '0', BROADCAST_INTERVAL: '0', NODE_ID: 'n1' });
  backend = new Backend(server.url, { apiKey });
}, 60_000);

afterAll(async () => {
  await browser.close();
  await server.stop();
  await database.drop();
}, 60_000);

const shows = (page: Page, text: string | RegExp) => page.getByText(text).first().waitFor({ timeout: 20_000 });

async function openConsole(options: Parameters<TestBrowser['newPage']>[0] = {}): Promise<WatchedPage> {
  const watched = await browser.newPage(options);
  await watched.page.goto(`${server.url}/console`);
  await watched.page.getByLabel('Admin key').fill(adminKey);
  await watched.page.getByRole('button', { name: 'Open' }).click();
  await watched.page.getByRole('cell', { name: 'n1', exact: true }).waitFor({ timeout: 20_000 });
  return watched;
}

test('nothing is told without the key', async () => {
  const { page } = await browser.newPage();
  await page.goto(`${server.url}/console`);
  await page.getByLabel('Admin key').fill('a-wrong-key-of-the-operator-012345');
  await page.getByRole('button', { name: 'Open' }).click();
  await shows(page, /needs the admin key/);
  expect(await page.locator('#all').isVisible()).toBe(false);
  await page.close();
  const paths = [
    'GET state',
    'GET rates',
    'GET metrics',
    'GET users/ann',
    'POST users/ann/disconnect',
    'POST ticket',
    'POST publish',
  ];
  for (const [method = '', path = ''] of paths.map((each) => each.split(' '))) {
    for (const key of [undefined, apiKey, 'wrong']) {
      const headers = { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) };
      const body = method === 'POST' ? JSON.stringify({ channel: 'news', data: 1 }) : null;
      const { status } = await fetch(`${server.url}/console/${path}`, { method, headers, body });
      expect(`${method} ${path} ${key} ${status}`).toBe(`${method} ${path} ${key} 401`);
    }
  }
});

test('shows nodes, channels and watches, tails a channel, publishes, and disconnects a user', async () => {
  const watched = await openConsole();
  const { page } = watched;
  const client = new Sobranie(server.url, {
    token: () => signToken({ sub: 'ann', channels: everything }, { secret }),
  });
  const heard: unknown[] = [];
  client.channel('news').subscribe(({ data }) => heard.push(data));
  await page.getByRole('button', { name: 'Tail news' }).click({ timeout: 20_000 });
  await shows(page, 'news: live');
  await backend.publish('news', { text: '<b>one</b>', large: 7 });
  await shows(page, '{"text":"<b>one</b>","large":7}');
  await page.getByLabel('Channel to publish to').fill('news');
  await page.getByLabel('Data, as JSON').fill('{"big": 9007199254740993}');
  await page.getByRole('button', { name: 'Publish' }).click();
  await shows(page, 'Published to news, offset 2.');
  await shows(page, '{"big":"9007199254740993"}');
  await until(() => heard.length === 2, 'both messages');
  await page.getByLabel('Data, as JSON').fill('{');
  await page.getByRole('button', { name: 'Publish' }).click();
  await shows(page, 'The data is not JSON.');
  await shows(page, 'orders → orders, orders:{id} (id)');
  // The node keeps what it was: also a page that comes later shows it.
  await page
    .locator('#rates figure')
    .filter({ hasText: 'Publications/s' })
    .locator('b', { hasText: /\d/ })
    .waitFor({ timeout: 60_000 });
  await page.getByLabel('User', { exact: true }).fill('ann');
  await page.getByRole('button', { name: 'Look' }).click();
  await page.locator('#connections').getByText('websocket').waitFor();
  await page.getByRole('button', { name: 'Disconnect all' }).click();
  await shows(page, 'ann is not connected.');
  await until(() => client.status.state === 'closed', 'the client ends');
  expect(client.status.error?.code).toBe('disconnected');
  await page.getByRole('button', { name: 'Forget the key' }).click();
  await page.getByLabel('Admin key').waitFor();
  expect(await page.locator('#all').isVisible()).toBe(false);
  // The browser's own word on the first look, which had no key yet.
  expect(watched.errors.filter((text) => !text.includes('401'))).toEqual([]);
  expect([...new Set(watched.requests.map((request) => new URL(request).host))]).toEqual([new URL(server.url).host]);
  await page.close();
});

test.each([
  [1_200, false],
  [1_200, true],
  [360, false],
  [360, true],
])(
  'both pages can be used by everyone, %d px wide, dark: %p',
  async (width, dark) => {
    const { page } = await openConsole({ width, dark });
    await backend.publish('posts', 'one');
    expect(await faultsOf(page)).toEqual([]);
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width);
    await page.close();
    const demo = await browser.newPage({ width, dark });
    await demo.page.goto(server.url);
    // This server takes no one without a token.
    await demo.page.getByLabel('This server asks for a token').waitFor({ timeout: 20_000 });
    expect(await faultsOf(demo.page)).toEqual([]);
    const token = await signToken({ sub: 'bob', channels: everything }, { secret });
    await demo.page.getByLabel('This server asks for a token').fill(token);
    await demo.page.getByRole('button', { name: 'Connect with it' }).click();
    for (const column of ['#socket', '#stream']) {
      await demo.page.locator(`${column} .badge[data-state=live]`).waitFor({ timeout: 20_000 });
    }
    await shows(demo.page, 'Here now: bob');
    await demo.page.getByLabel('Title', { exact: true }).first().fill('A row');
    await demo.page.getByRole('button', { name: 'Insert' }).click();
    await demo.page
      .getByRole('button', { name: /Edit row \d+ in the WebSocket list/ })
      .first()
      .waitFor();
    expect(await faultsOf(demo.page)).toEqual([]);
    expect(await demo.page.evaluate('document.documentElement.scrollWidth')).toBe(width);
    await demo.page.close();
  },
  180_000,
);

test('in production there is no console unless it has a key', async () => {
  const production = await startServer({ DATABASE_URL: database.url, JWT_SECRET: secret, NODE_ENV: 'production' });
  expect((await fetch(`${production.url}/console`)).status).toBe(404);
  expect((await fetch(`${production.url}/console/state`)).status).toBe(404);
  await production.stop();
});
