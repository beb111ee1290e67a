// The demo page in a real browser against a real server and database: what SQL writes appears in both columns, the
// page's own buttons reach the table, a cut loses and repeats nothing, and a restart of the server heals by itself.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import postgres, { type Sql } from 'postgres';
import { launchBrowser, type TestBrowser, type WatchedPage } from '../support/browser.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { patient } from '../support/patience.ts';

patient();

const setupMs = 60_000;
const testMs = 60_000;
const appearMs = 30_000;
const columns = ['#socket', '#stream'] as const;

let database: TestDatabase;
let server: RunningServer;
let sql: Sql;
let browser: TestBrowser;
let watched: WatchedPage;

beforeAll(async () => {
  database = await createDatabase({ migrated: true });
  sql = postgres(database.url, { max: 2, onnotice: () => {} });
  [server, browser] = await Promise.all([startServer({ DATABASE_URL: database.url }), launchBrowser()]);
}, setupMs);

afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await sql?.end({ timeout: 1 });
  await database?.drop();
}, setupMs);

beforeEach(async () => {
  await sql`delete from public.posts`;
  watched = await browser.newPage();
  await watched.page.goto(server.url);
  await bothLive();
}, setupMs);

afterEach(async () => {
  await watched.page.close();
});

async function bothLive(): Promise<void> {
  for (const column of columns) {
    await watched.page.locator(`${column} .badge[data-state=live]`).waitFor({ timeout: appearMs });
  }
}

/** Waits until both columns show exactly one row with this title, or none. */
async function inBoth(title: string, state: 'visible' | 'detached' = 'visible'): Promise<void> {
  for (const column of columns) {
    const text = watched.page.locator(`${column} li .title`).getByText(title, { exact: true });
    await text.waitFor({ state, timeout: appearMs });
  }
}

async function counter(column: string, name: string): Promise<number> {
  return Number(await watched.page.locator(`${column} [data-part=${name}]`).textContent());
}

async function received(): Promise<number[]> {
  return Promise.all(columns.map((column) => counter(column, 'received')));
}

// The page draws once per frame, so what a feed knows is on screen a little later.
async function eventually<T>(read: () => Promise<T>, wanted: T): Promise<void> {
  const deadline = Date.now() + appearMs;
  let value = await read();
  while (!Bun.deepEquals(value, wanted) && Date.now() < deadline) {
    await Bun.sleep(20);
    value = await read();
  }
  expect<unknown>(value).toEqual(wanted);
}

async function expectNothingLostOrRepeated(): Promise<void> {
  for (const column of columns) {
    for (const name of ['duplicates', 'holes', 'gaps']) {
      expect(`${column} ${name} ${await counter(column, name)}`).toBe(`${column} ${name} 0`);
    }
  }
}

async function expectSameRowsAsTable(): Promise<void> {
  const rows = await sql<{ id: string }[]>`select p.id from public.posts p order by p.id desc limit 50`;
  for (const column of columns) {
    await eventually(
      () => watched.page.locator(`${column} li .id`).allTextContents(),
      rows.map((row) => row.id),
    );
  }
}

function expectQuietAndLocal(): void {
  expect(watched.errors).toEqual([]);
  const hosts = new Set(watched.requests.map((request) => new URL(request).host));
  expect([...hosts]).toEqual([new URL(server.url).host]);
}

describe('the demo page', () => {
  test(
    'shows what SQL inserts, updates and deletes in both columns',
    async () => {
      await sql`insert into public.posts (title, body) values ('by sql', 'one')`;
      await inBoth('by sql');
      await sql`update public.posts set title = 'changed by sql', updated_at = now() where title = 'by sql'`;
      await inBoth('changed by sql');
      await inBoth('by sql', 'detached');
      await sql`delete from public.posts where title = 'changed by sql'`;
      await inBoth('changed by sql', 'detached');

      await expectNothingLostOrRepeated();
      expectQuietAndLocal();
    },
    testMs,
  );

  test(
    'shows rows that were there before, and markup in them as text',
    async () => {
      const title = '<img src="/demo/nothing" onerror="document.title=1"> & ﷽ 😀';
      await sql`insert into public.posts (title, body) values (${title}, '<script>1</script>')`;
      await inBoth(title);
      await watched.page.reload();
      await bothLive();
      await inBoth(title);

      expect(await watched.page.locator('li img, li script').count()).toBe(0);
      expectQuietAndLocal();
    },
    testMs,
  );

  test(
    'inserts, edits and deletes rows by its own buttons',
    async () => {
      const { page } = watched;
      await page.fill('#insert [name=title]', 'by the form');
      await page.fill('#insert [name=body]', 'some words');
      await page.click('#insert button');
      await inBoth('by the form');

      await page.locator('#stream li').getByRole('button', { name: 'Edit' }).click();
      await page.fill('#edit [name=title]', 'edited');
      await page.click('#edit .primary');
      await inBoth('edited');
      expect([...(await sql`select title, body from public.posts`)]).toEqual([{ title: 'edited', body: 'some words' }]);

      await page.locator('#socket li').getByRole('button', { name: 'Delete' }).click();
      await inBoth('edited', 'detached');
      expect(await sql`select id from public.posts`).toHaveLength(0);
      await expectNothingLostOrRepeated();
      expectQuietAndLocal();
    },
    testMs,
  );

  test(
    'after a cut of five seconds has every missed row exactly once, in both columns',
    async () => {
      const { page } = watched;
      await sql`insert into public.posts (title, body) values ('before the cut', '')`;
      await inBoth('before the cut');
      const receivedBefore = await received();
      await page.click('#cut');
      for (const column of columns) {
        await page.locator(`${column} .badge[data-state=cut]`).waitFor({ timeout: appearMs });
      }
      await sql`insert into public.posts (title, body) values ('by sql during the cut', '')`;
      await sql`update public.posts set title = 'changed during the cut' where title = 'before the cut'`;

      for (const column of columns) {
        const recovery = page.locator(`${column} .recovery:is([data-state=whole], [data-state=broken])`);
        await recovery.waitFor({ timeout: 30_000 });
        expect(await recovery.textContent()).toBe('recovered 10 of 10, each exactly once');
      }
      await inBoth('by sql during the cut');
      await inBoth('changed during the cut');
      await expectSameRowsAsTable();
      await expectNothingLostOrRepeated();
      // Ten inserts by the page, one insert and one update by SQL: each once, through each connection.
      const wanted = receivedBefore.map((count) => count + 12);
      await eventually(received, wanted);
      expectQuietAndLocal();
    },
    testMs,
  );

  test(
    'comes back by itself after the server was away, with what was written meanwhile',
    async () => {
      const { port } = server;
      await server.stop();
      await sql`insert into public.posts (title, body) values ('while it was away', '')`;
      server = await startServer({ DATABASE_URL: database.url, PORT: String(port) });
      await bothLive();
      await inBoth('while it was away');
      await expectSameRowsAsTable();
      await expectNothingLostOrRepeated();
    },
    testMs,
  );

  test(
    'fits a phone: nothing is wider than the screen',
    async () => {
      const phone = await browser.newPage({ width: 390, height: 844, dark: true });
      await phone.page.goto(server.url);
      await phone.page.locator('#stream .badge[data-state=live]').waitFor({ timeout: appearMs });
      const width = await phone.page.evaluate('document.documentElement.scrollWidth');
      await phone.page.close();
      expect(width).toBe(390);
    },
    testMs,
  );
});

describe('the demo API', () => {
  const call = async (method: string, path: string, body?: string, type = 'application/json') => {
    const response = await fetch(new URL(path, server.url), {
      method,
      ...(body !== undefined && { body, headers: { 'content-type': type } }),
      signal: AbortSignal.timeout(appearMs),
    });
    return { status: response.status, answer: await response.json() };
  };

  const refusals = [
    ['no title', 'POST', '/demo/posts', '{"body":"x"}', 400, 'bad_request'],
    ['an empty title', 'POST', '/demo/posts', '{"title":""}', 400, 'bad_request'],
    ['a title of spaces', 'POST', '/demo/posts', '{"title":"  "}', 400, 'bad_request'],
    ['a title of 201 characters', 'POST', '/demo/posts', `{"title":"${'x'.repeat(201)}"}`, 400, 'bad_request'],
    ['a NUL character', 'POST', '/demo/posts', '{"title":"a\\u0000b"}', 400, 'bad_request'],
    ['bad JSON', 'POST', '/demo/posts', '{"title":', 400, 'bad_request'],
    ['a large body', 'POST', '/demo/posts', `{"title":"${'x'.repeat(20_000)}"}`, 413, 'too_large'],
    ['an empty change', 'PATCH', '/demo/posts/1', '{}', 400, 'bad_request'],
    ['an id that is no number', 'PATCH', '/demo/posts/x', '{"title":"x"}', 400, 'bad_request'],
    ['a row that is not there', 'PATCH', '/demo/posts/999999999', '{"title":"x"}', 404, 'bad_request'],
    ['deleting a row that is not there', 'DELETE', '/demo/posts/999999999', undefined, 404, 'bad_request'],
  ] as const;

  test.each(refusals)('refuses %s with a readable error', async (_name, method, path, body, status, code) => {
    const refused = await call(method, path, body);
    expect(refused.status).toBe(status);
    expect(refused.answer).toEqual({ error: { code, message: expect.any(String), retryable: false } });
    expect(await sql`select id from public.posts`).toHaveLength(0);
  });

  // On a database of one's own there are no demo tables, and the page said that its table was another one.
  test('says what makes the table, where there is none', async () => {
    await sql`alter table public.posts rename to set_aside`;
    try {
      const refused = await call('GET', '/demo/posts');
      expect(refused.status).toBe(400);
      expect(JSON.stringify(refused.answer)).toContain('DEMO_TABLES=true');
    } finally {
      await sql`alter table public.set_aside rename to posts`;
    }
  });

  test('takes JSON alone, since a form of another site needs no preflight', async () => {
    for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data; boundary=x']) {
      expect((await call('POST', '/demo/posts', '{"title":"x"}', type)).status).toBe(400);
    }
  });

  test('lists rows in the shape in which the watch publishes them', async () => {
    const inserted = await call('POST', '/demo/posts', '{"title":"shape","body":"b"}');
    expect(inserted.status).toBe(201);
    expect(inserted.answer).toMatchObject({ id: expect.any(Number), title: 'shape', body: 'b' });
    expect((await call('GET', '/demo/posts')).answer).toEqual({ posts: [inserted.answer] });
  });
});
