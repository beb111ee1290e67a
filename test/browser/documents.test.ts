// The documents that a server in development shows, in a real browser: none is wider than a phone, and those that have
// one of everything keep the rules of accessibility; in the long form, all. That their links lead somewhere is shown by
// `test/documents/pages.test.ts`.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { faultsOf, launchBrowser, type TestBrowser } from '../support/browser.ts';
import { readDocuments } from '../support/documents.ts';
import { patient } from '../support/patience.ts';
import { fromSource, startServer, type RunningServer } from '../support/process.ts';

patient();

const all = readDocuments().map(({ path }) => path);
/** Between them they have whatever a document has: pictures, tables, code, links of each kind. */
const looked = process.env['LONG'] === '1' ? all : ['README.md', 'docs/README.md', 'docs/http.md'];

let server: RunningServer;
let browser: TestBrowser;

beforeAll(async () => {
  const served = startServer({ SYNC: 'memory', NODE_ENV: 'development' }, 60_000, fromSource);
  [server, browser] = await Promise.all([served, launchBrowser()]);
}, 120_000);

afterAll(async () => {
  await browser?.close();
  await server?.kill9();
});

test('none is wider than a phone: what has to be scrolls by itself', async () => {
  const { page, errors } = await browser.newPage({ width: 360 });
  const wide: object[] = [];
  for (const path of all) {
    await page.goto(`${server.url}/docs/${path}`);
    const width = Number(await page.evaluate('document.documentElement.scrollWidth'));
    if (width > 360) wide.push({ path, width });
  }
  expect(wide).toEqual([]);
  expect(errors).toEqual([]);
  await page.close();
}, 120_000);

test.each([
  [1_200, false],
  [360, true],
])(
  'they can be used by everyone, %d px wide, dark: %p',
  async (width, dark) => {
    const { page } = await browser.newPage({ width, dark });
    for (const path of looked) {
      await page.goto(`${server.url}/docs/${path}`);
      expect({ path, found: await faultsOf(page) }).toEqual({ path, found: [] });
    }
    await page.close();
  },
  300_000,
);
