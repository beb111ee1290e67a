// The chat example, as it stands in examples/chat: two users in two Chromium pages on two nodes. Rows first and then
// live; what is older than both; who types, who is here; who is muted or kicked.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { Page } from 'playwright-core';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { spawnScript, type RunningProcess, type RunningServer } from '../support/process.ts';
import { secret } from '../support/tokens.ts';

patient();

let database: TestDatabase;
let sql: postgres.Sql;
let nodes: RunningServer[] = [];
let backend: RunningProcess;
let url: string;
let browser: TestBrowser;

beforeAll(async () => {
  database = await createDatabase({ migrated: true });
  sql = postgres(database.url, { max: 1, onnotice: () => undefined });
  nodes = await startNodes(2, () => ({
    DATABASE_URL: database.url,
    JWT_SECRET: secret,
    API_KEY: 'the-key',
    ALLOWED_ORIGINS: '*',
    CONFIG_FILE: 'examples/chat/realtime.config.ts',
    PRESENCE_GRACE: '1',
  }));
  backend = spawnScript('examples/chat/backend.ts', {
    DATABASE_URL: database.url,
    JWT_SECRET: secret,
    API_KEY: 'the-key',
    SOBRANIE_URL: nodes[0]!.url,
    PORT: '0',
  });
  [, url = ''] = await backend.waitForOutput(/open (http\S+)/);
  browser = await launchBrowser();
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await backend?.stop();
  await stopNodes(nodes);
  await sql?.end({ timeout: 1 });
  await database?.drop();
}, 60_000);

/** Each in a browser of its own, so to speak: cookies are not shared. */
async function enter(name: string, node: RunningServer): Promise<Page> {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${url}?room=lobby&name=${name}&server=${encodeURIComponent(node.url)}`);
  await page.waitForFunction('document.body.dataset.status === "live"');
  return page;
}

const says = async (page: Page, text: string): Promise<void> => {
  await page.getByLabel('Message').fill(text);
  await page.keyboard.press('Enter');
};
const shows = (page: Page, text: string): Promise<void> => page.getByText(text, { exact: true }).first().waitFor();
const messages = (page: Page): Promise<string[]> => page.locator('#messages li').allTextContents();

async function isIn(page: Page, list: string, texts: readonly string[]): Promise<void> {
  await page.waitForFunction(
    `JSON.stringify([...document.querySelectorAll('${list} li')].map((item) => item.textContent).sort()) === '${JSON.stringify(texts)}'`,
  );
}

test('two users on two nodes', async () => {
  await sql`insert into messages (room, author_id, body) select 'lobby', 'old', 'line ' || n from generate_series(1, 70) n`;
  const [ann, bob] = [await enter('ann', nodes[0]!), await enter('bob', nodes[1]!)];
  expect(await messages(ann)).toHaveLength(30);
  await isIn(ann, '#members', ['ann', 'bob']);
  await isIn(bob, '#members', ['ann', 'bob']);

  await says(ann, 'hello');
  await shows(bob, 'ann is typing');
  await Promise.all([shows(ann, 'ann: hello'), shows(bob, 'ann: hello')]);
  await says(bob, 'good day');
  await Promise.all([shows(ann, 'bob: good day'), shows(bob, 'bob: good day')]);

  // 30 with the page; the others from the table, in three pages, in which the last one says so.
  for (const first of ['old: line 21', 'old: line 1']) {
    await bob.locator('#older').click();
    await shows(bob, first);
  }
  expect(await bob.locator('#older').isDisabled()).toBe(true);
  expect(await messages(bob)).toEqual([
    ...Array.from({ length: 70 }, (_, index) => `old: line ${index + 1}`),
    'ann: hello',
    'bob: good day',
  ]);

  // Muted: reads on, and is heard no more. Neither message nor typing goes out.
  const ban = (kind: string) => fetch(`${url}rooms/lobby/ban/bob/${kind}`, { method: 'POST' });
  expect((await ban('muted')).status).toBe(204);
  await says(bob, 'can you hear me');
  await bob.waitForFunction('document.body.dataset.sent === "403" && document.body.dataset.error === "forbidden"');
  await says(ann, 'nobody hears bob');
  await shows(bob, 'ann: nobody hears bob');
  expect(await ann.locator('#messages').textContent()).not.toContain('can you hear me');

  // Kicked: gone from the list, and told no more; nor may he come in again.
  expect((await ban('kicked')).status).toBe(204);
  await isIn(ann, '#members', ['ann']);
  await bob.waitForFunction('document.body.dataset.status === "failed"');
  await says(ann, 'he is gone');
  await shows(ann, 'ann: he is gone');
  expect(await messages(bob)).not.toContain('ann: he is gone');
});
