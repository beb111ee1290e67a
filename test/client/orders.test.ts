// The example of orders in React, in a real browser, through a life: login, rows that others write, a write of its own,
// who else is there, a deploy, tokens that end, a frozen page whose connection is gone, a network that goes and comes.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { Page } from 'playwright-core';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import {
  spawnScript,
  startServer,
  type Environment,
  type RunningProcess,
  type RunningServer,
} from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { launchTabs, type Tabs } from '../support/tabs.ts';
import { until } from '../support/tcp-client.ts';
import { secret } from '../support/tokens.ts';

patient();

let database: TestDatabase;
let sql: postgres.Sql;
let server: RunningServer;
let proxy: Proxy;
let backend: RunningProcess;
let backendUrl: string;
let browser: TestBrowser;
/** Of one visitor, with a page that can be hidden and frozen. */
let tabs: Tabs;
let settings: Environment;

beforeAll(async () => {
  [database, browser, tabs] = await Promise.all([createDatabase({ migrated: true }), launchBrowser(), launchTabs()]);
  sql = postgres(database.url, { onnotice: () => undefined });
  settings = {
    DATABASE_URL: database.url,
    SYNC: 'postgres',
    JWT_SECRET: secret,
    ALLOWED_ORIGINS: '*',
    HEARTBEAT: '8',
    SHUTDOWN_TIMEOUT: '2',
    DRAIN_WINDOW: '1',
  };
  server = await startServer(settings);
  proxy = await startProxy({ port: server.port });
  backend = spawnScript('examples/react-orders/backend.ts', {
    DATABASE_URL: database.url,
    JWT_SECRET: secret,
    SOBRANIE_URL: `http://127.0.0.1:${proxy.port}`,
    // With a warning after 3 s, and an end 5 s after the time.
    TOKEN_SECONDS: '8',
  });
  const [, url = ''] = await backend.waitForOutput(/open (http\S+)/);
  backendUrl = url;
}, 60_000);

afterAll(async () => {
  await Promise.all([browser.close(), tabs.close()]);
  await backend.stop();
  await Promise.all([proxy.close(), server.stop()]);
  await sql.end({ timeout: 1 });
  await database.drop();
}, 60_000);

const shows = (page: Page, text: string): Promise<void> => page.getByText(text).first().waitFor({ timeout: 30_000 });

async function login(user: string, page: Page): Promise<Page> {
  await page.goto(backendUrl);
  await page.getByLabel('Name').fill(user);
  await page.keyboard.press('Enter');
  await shows(page, 'connected, live');
  return page;
}

test('orders stay true through a life', async () => {
  const startedAt = performance.now();
  const insert = (customer: string) => sql`insert into orders (customer, status) values (${customer}, 'new')`;
  await insert('before');
  const page = await login('ann', await tabs.context.newPage());
  await shows(page, 'before: new');

  await insert('live');
  await shows(page, 'live: new');

  await page.getByText('live: new').click();
  await shows(page, 'live: sent');
  const isStored = async (): Promise<boolean> =>
    (await sql`select from orders where customer = 'live' and status = 'sent'`).length === 1;
  await until(isStored, 'the backend has stored it');

  const other = await login('bob', (await browser.newPage()).page);
  await shows(page, 'here: ann, bob');
  await shows(other, 'here: ann, bob');
  await shows(other, 'live: sent');
  await other.close();
  await page.getByText('here: ann, bob').waitFor({ state: 'detached', timeout: 30_000 });
  await shows(page, 'here: ann');

  // A deploy: another server takes over, the old one leaves in order.
  const next = await startServer(settings);
  proxy.retarget({ port: next.port });
  const left = server.stop();
  await insert('deploy');
  await shows(page, 'deploy: new');
  expect(await left).toBe(0);
  server = next;

  // Asleep, and the connection is lost meanwhile.
  await tabs.freeze(page);
  proxy.swallow();
  await insert('asleep');
  await sql`delete from orders where customer = 'before'`;
  await tabs.thaw(page);
  const thawedAt = performance.now();
  await shows(page, 'asleep: new');
  await page.getByText('before: new').waitFor({ state: 'detached', timeout: 10_000 });
  // Not by the watch, which takes two heartbeats.
  expect(performance.now() - thawedAt).toBeLessThan(12_000);

  // Hidden, with slow timers, it is the watch that finds out.
  if (process.env['LONG'] === '1') {
    await tabs.hide(page);
    proxy.swallow();
    await insert('hidden');
    await page.getByText('hidden: new').waitFor({ state: 'attached', timeout: 60_000 });
    await tabs.show(page);
  }

  await page.context().setOffline(true);
  proxy.cut();
  await insert('offline');
  await page.context().setOffline(false);
  await shows(page, 'offline: new');

  // Longer than the first token lasts.
  while (performance.now() - startedAt < 15_000) {
    await insert('waiting');
    await page.waitForTimeout(1_000);
  }
  await insert('expired');
  await shows(page, 'expired: new');
  const rows = await sql`select customer, status from orders order by id`;
  const shown = await page.getByRole('button').allTextContents();
  expect(shown.toSorted()).toEqual(rows.map(({ customer, status }) => `${customer}: ${status}`).toSorted());
  await page.close();
});
