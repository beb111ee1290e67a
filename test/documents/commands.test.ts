// The shell lines of the documents are run as they stand, with a real server and database where they name one, and the
// calls that docs/http.md lists are those that the server describes itself. Blocks call python3 and PHP (php-cli) too.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { temporaryFolder } from '../support/janitor.ts';
import { readDocument, readDocuments, tableAfter } from '../support/documents.ts';
import { createDatabase, freePort, type TestDatabase } from '../support/postgres.ts';
import { spawnShell, startServer, type RunningServer } from '../support/process.ts';
import { patient } from '../support/patience.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
const blocks = readDocuments().flatMap((document) =>
  document.blocks.filter(({ language, words }) => language === 'sh' && words.includes('run')),
);

let database: TestDatabase;
let server: RunningServer;

beforeAll(async () => {
  [database, server] = await Promise.all([
    createDatabase({ migrated: true }),
    startServer({ SYNC: 'memory', API_KEY: apiKey }),
  ]);
});

afterAll(async () => {
  await server?.kill9();
  await database?.drop();
});

test.each(blocks.map((block) => [block.place, block] as const))('%s', async (_place, { text, values }) => {
  const line = text
    .replaceAll('localhost:3000', new URL(server.url).host)
    .replaceAll(/postgres:\/\/\S+/g, database.url);
  const shell = spawnShell(line, {
    API_KEY: apiKey,
    DATA_DIR: temporaryFolder(),
    PORT: String(await freePort()),
    SHUTDOWN_TIMEOUT: '1',
  });
  const prints = values.get('prints');
  if (prints === undefined) {
    expect(await shell.waitForExit()).toBe(0);
    // What curl prints of a refusal; its exit code does not tell.
    expect(shell.stdout()).not.toContain('"error"');
    return;
  }
  try {
    await shell.waitForOutput(new RegExp(RegExp.escape(prints)), 30_000);
  } finally {
    await shell.stop();
  }
});

test('docs/http.md lists the calls that the server has', async () => {
  const answer = await fetch(`${server.url}/swagger/json`);
  const { paths } = (await answer.json()) as { paths: Record<string, Record<string, unknown>> };
  const offered = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`),
  );
  const cells = tableAfter(readDocument('docs/http.md'), '# HTTP').map(([call = '']) => call);
  const listed = cells.flatMap((cell) =>
    Array.from(cell.matchAll(/`((?:GET|POST|PUT|DELETE) [^\s?`]+)/g), (match) => match[1] ?? ''),
  );
  const ofPages = /^GET \/(swagger|demo|$)|\/demo/;
  expect([...new Set(listed)].filter((call) => !ofPages.test(call)).toSorted()).toEqual(
    offered.filter((call) => !ofPages.test(call)).toSorted(),
  );
});
