// `bun scripts/picture.ts`: takes the README's picture again, `docs/images/page.png`, of the demo page in a real browser
// with a server and a database of its own. Needs the packages that the tests need.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import postgres from 'postgres';
import { launchBrowser } from '../test/support/browser.ts';

const root = new URL('..', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'sobranie-picture-'));
const server = Bun.spawn([process.execPath, 'src/main.ts'], {
  cwd: root,
  env: { PATH: process.env['PATH'], HOST: '127.0.0.1', PORT: '0', DATA_DIR: folder, NODE_ID: 'n1', NO_COLOR: '1' },
  stdout: 'pipe',
  stderr: 'ignore',
});

/** The page's and the database's URL, as start-up prints them. */
async function printed(): Promise<{ readonly page: string; readonly database: string }> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of server.stdout) {
    text += decoder.decode(chunk, { stream: true });
    const page = /page\s+(http:\S+)/.exec(text)?.[1];
    const database = /database\s+(postgres:\S+)/.exec(text)?.[1];
    if (page !== undefined && database !== undefined) return { page, database };
  }
  throw new Error(`the server ended: ${text}`);
}

const { page: url, database } = await printed();
const sql = postgres(database, { max: 1 });
const browser = await launchBrowser();
try {
  const { page } = await browser.newPage({ width: 1200, height: 670 });
  await page.goto(url);
  await page.getByText('live', { exact: true }).nth(1).waitFor();
  const titles = ['Hello', 'Written by psql', 'Three cups of tea', 'In order, once'];
  for (const title of titles) await sql`insert into posts ${sql({ title })}`;
  await sql`update posts set title = 'Three cups of coffee' where title = 'Three cups of tea'`;
  await sql`delete from posts where title = 'Hello'`;
  await page.getByText('Three cups of coffee').nth(1).waitFor();
  await page.getByText('Hello', { exact: true }).waitFor({ state: 'detached' });
  // The database's password is of no use to anyone, and yet would look like a leak.
  const line = page.locator('#psql-line');
  const text = ((await line.textContent()) ?? '').replace(/:[^:@]*@/, ':…@');
  await line.evaluate((element, shown) => Object.assign(element, { textContent: shown }), text);
  await page.screenshot({ path: join(root, 'docs/images/page.png') });
} finally {
  await browser.close();
  await sql.end({ timeout: 1 });
  server.kill('SIGTERM');
  await server.exited;
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
