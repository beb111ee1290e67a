// Notifications: a row that anybody inserts is seen by its owner in every tab on every node, behind nginx; so is what a
// backend sends. A marker set by one tab reaches the others, and who was away finds what came meanwhile, by position or
// as rows of the table.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import { launchBrowser, type TestBrowser, type WatchedPage } from '../support/browser.ts';
import { startNginx, type Nginx } from '../support/nginx.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { runProgram } from '../../src/embedded/process.ts';
import type { RunningServer } from '../support/process.ts';
import { TestRules } from '../support/rules-file.ts';
import { secret, tokenOf } from '../support/tokens.ts';

patient();

const rules = new TestRules(`
  { channels: 'user:{sub}', join: 'always', allow: { subscribe: 'owner', history: 'owner', publish: 'nobody' },
    snapshot: ({ user, sql }) => sql\`
      select * from notifications where user_id = \${user} order by id desc limit 100\` },
  { channels: '*' }`);

interface Told {
  readonly type: string;
  readonly rows?: readonly { readonly title: string; readonly read_at: string | null }[];
  readonly data?: {
    readonly action: string;
    readonly data: { readonly title: string; readonly read_at: string | null };
  };
}

declare global {
  var told: Told[];
  var node: string;
  var lastId: string;
}

let database: TestDatabase;
let nodes: RunningServer[] = [];
let nginx: Nginx;
let browser: TestBrowser;

beforeAll(async () => {
  database = await createDatabase({ migrated: true });
  nodes = await startNodes(2, () => ({
    DATABASE_URL: database.url,
    JWT_SECRET: secret,
    API_KEY: 'the-key',
    CONFIG_FILE: rules.path,
  }));
  [nginx, browser] = await Promise.all([startNginx({ ports: nodes.map(({ port }) => port) }), launchBrowser()]);
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await nginx?.close();
  await stopNodes(nodes);
  await database?.drop();
}, 60_000);

/** A statement as a person types it; psql is of the package postgresql-client. */
async function typed(statement: string): Promise<void> {
  await runProgram(['psql', '-qX', '-v', 'ON_ERROR_STOP=1', database.url, '-c', statement], { name: 'psql' });
}

/** A tab of the user, with a bare EventSource; `more` goes into its URL. */
async function tab(user: string, more = ''): Promise<WatchedPage> {
  const watched = await browser.newPage();
  await watched.page.goto(nginx.url);
  await watched.page.evaluate(
    (url) => {
      globalThis.told = [];
      // The types of this runtime know of no such constructor.
      const Source = globalThis.EventSource as unknown as new (url: string) => EventTarget;
      const stream = new Source(url);
      for (const type of ['welcome', 'message', 'snapshot', 'gap']) {
        stream.addEventListener(type, (event) => {
          const frame = JSON.parse((event as MessageEvent<string>).data) as Told & { node?: string };
          globalThis.lastId = (event as MessageEvent<string>).lastEventId;
          if (frame.node !== undefined) globalThis.node = frame.node;
          told.push(frame);
        });
      }
    },
    `/realtime/events?channels=user:${user}&token=${await tokenOf({ sub: user })}${more}`,
  );
  await watched.page.waitForFunction(() => told.length > 0);
  return watched;
}

/** Resolves when the tab was told of such a change. */
async function hears({ page }: WatchedPage, title: string, isRead = false): Promise<void> {
  await page.waitForFunction(
    ([wanted, read]) => told.some(({ data }) => data?.data.title === wanted && (data.data.read_at !== null) === read),
    [title, isRead] as const,
  );
}

/** Two tabs of one user, on one node each. */
async function tabsOnBothNodes(user: string): Promise<[WatchedPage, WatchedPage]> {
  const first = await tab(user);
  const here = await first.page.evaluate(() => node);
  for (let attempt = 0; attempt < 20; attempt++) {
    const second = await tab(user);
    if ((await second.page.evaluate(() => node)) !== here) return [first, second];
    await second.page.close();
  }
  throw new Error('nginx sent all tabs to one node');
}

test('an insert, a marker and a call reach every tab of the user, on both nodes, and nobody else', async () => {
  const [one, two] = await tabsOnBothNodes('ann');
  const other = await tab('bob');
  await typed(`insert into notifications (user_id, title) values ('ann', 'typed in psql')`);
  await Promise.all([hears(one, 'typed in psql'), hears(two, 'typed in psql')]);
  await typed(`update notifications set read_at = now() where title = 'typed in psql'`);
  await Promise.all([hears(one, 'typed in psql', true), hears(two, 'typed in psql', true)]);
  const answer = await fetch(`${nodes[1]!.url}/realtime/users/ann/notify`, {
    method: 'POST',
    headers: { authorization: 'Bearer the-key', 'content-type': 'application/json' },
    body: JSON.stringify({ data: { action: 'CALL', data: { title: 'by a call', read_at: null } } }),
  });
  expect(answer.status).toBe(200);
  await Promise.all([hears(one, 'by a call'), hears(two, 'by a call')]);
  await typed(`insert into notifications (user_id, title) values ('bob', 'for bob')`);
  await hears(other, 'for bob');
  for (const { page } of [one, two]) {
    expect(await page.evaluate(() => told.map(({ data }) => data?.data.title))).not.toContain('for bob');
  }
  await Promise.all([one, two, other].map(({ page }) => page.close()));
});

test('who was away finds what came meanwhile, by position or as rows', async () => {
  const before = await tab('cleo', '&snapshot=1');
  await before.page.waitForFunction(() => told.some(({ type }) => type === 'snapshot'));
  const position = await before.page.evaluate(() => lastId);
  await before.page.close();
  const sql = postgres(database.url, { max: 1, onnotice: () => undefined });
  await sql`insert into notifications (user_id, title) values ('cleo', 'while away'), ('dan', 'not hers')`;
  await sql.end();
  const byPosition = await tab('cleo', `&snapshot=1&since=${encodeURIComponent(position)}`);
  await hears(byPosition, 'while away');
  expect(await byPosition.page.evaluate(() => told.map(({ type }) => type))).toEqual(['welcome', 'message']);
  const asRows = await tab('cleo', '&snapshot=1');
  // Rows are shared for a second: to those of the tab before the message is added, which came after them.
  await asRows.page.waitForFunction(() => told.some(({ rows = [], data }) => rows.length > 0 || data !== undefined));
  const titles = await asRows.page.evaluate(() =>
    told.flatMap(({ rows = [], data }) => [
      ...rows.map(({ title }) => title),
      ...(data === undefined ? [] : [data.data.title]),
    ]),
  );
  expect(titles).toEqual(['while away']);
  await Promise.all([byPosition, asRows].map(({ page }) => page.close()));
});
