// What the packages offer says what it is: every exported function and class, and every public method of theirs, has a
// docstring; those that are called have an example, and the examples are of the right types and run.

import { expect, test } from 'bun:test';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { items } from '../support/docstrings.ts';
import { endAfterTests } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';

patient();

const root = join(import.meta.dir, '../..');

/** Said in full by their docstrings, or shown with another one. */
const plain = [
  'Realtime',
  'TestServer',
  'connections',
  'Channel',
  'Presence',
  'LiveTable',
  'connect',
  'reconnect',
  'close',
  'channel',
  'on',
  'list',
  'remove',
];

test('all are found', () => {
  const names = new Set(items.map(({ name }) => name));
  for (const name of [
    'Sobranie',
    'channel',
    'subscribe',
    'publish',
    'liveTable',
    'useLiveTable',
    'sobranieCollection',
  ]) {
    expect(names).toContain(name);
  }
});

test('each has a docstring, with an example', () => {
  const bare = items.filter(({ docstring }) => docstring === '').map(({ file, name }) => `${file}: ${name}`);
  const unshown = items
    .filter(({ docstring, name }) => !docstring.includes('@example') && !plain.includes(name))
    .map(({ file, name }) => `${file}: ${name}`);
  expect({ bare, unshown }).toEqual({ bare: [], unshown: [] });
});

/** What the examples take for granted. */
const prelude = `
import { liveTable, Sobranie, SobranieError, type Change } from '@sobranie/client';
import { useChannel, useConnection, useLiveTable, usePresence, useTable } from '@sobranie/react';
import { sobranieCollection } from '@sobranie/tanstack-db';
import { createCollection } from '@tanstack/db';
import { Elysia } from 'elysia';
import { realtime, type Realtime } from '@sobranie/server/elysia';
import { startTestServer, type TestServer } from '@sobranie/server/testing';
import { Backend, BackendError, send, signToken, unwatch, verifyHook, watch, type Query } from '@sobranie/server';
interface Post { title: string }
interface Message { text: string }
interface Order { id: number; status: string }
const known = new Sobranie<{ posts: Change<Post>; orders: Change<Order>; 'chat:*': Message }>('');
const followed = liveTable(known, 'orders', { key: 'id' });
declare const knownBackend: Backend;
declare const knownServer: TestServer;
declare const DATABASE_URL: string;
declare const JWT_SECRET: string;
declare const knownApp: { decorator: { realtime: Realtime } };
declare const apiKey: string;
declare const secret: string;
declare const request: Request;
declare const connection: string;
declare const later: Order[];
declare const database: { query(query: Query): Promise<unknown> };
declare const room: string;
declare const order: Order;
declare const api: { send(id: number): Promise<void> };
declare function show(data: unknown): void;
declare function showNames(data: unknown): void;
declare function showOffline(is: boolean): void;
declare function showReadOnly(): void;
declare function render(...data: unknown[]): void;
declare function apply(data: unknown): void;
declare function add(data: unknown): void;
declare function reload(): Promise<void>;
export {};
`;

test('the examples are of the right types', async () => {
  const folder = join(root, 'node_modules/.examples');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const examples = items.flatMap(({ example }) => example ?? []);
  expect(examples.length).toBeGreaterThan(12);
  const paths = examples.map((example, index) => {
    const path = join(folder, `example-${index}.ts`);
    const own = `${/new Sobranie/.test(example) ? '' : 'const client = known;'}${/const orders/.test(example) ? '' : 'const orders = followed;'}${/new Backend/.test(example) ? '' : 'const backend = knownBackend;'}${/(const|using) server/.test(example) ? '' : 'const server = knownServer;'}${/const app/.test(example) ? '' : 'const app = knownApp;'}`;
    writeFileSync(path, `${prelude}\nexport async function example() {\n${own}\n${example}\n}\n`);
    return path;
  });
  const config = { extends: '../../tsconfig.json', include: ['../../src/**/*.d.ts'], files: paths };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
  try {
    const check = Bun.spawn([join(root, 'node_modules/.bin/tsc'), '--noEmit', '-p', folder], { stdout: 'pipe' });
    expect(await check.stdout.text()).toBe('');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  // The compiler is the slowest part of a loaded machine.
}, 300_000);

test('the examples run, against a real server, and do what they say', async () => {
  const database = await createDatabase({ migrated: true });
  try {
    const command = [process.execPath, join(import.meta.dir, 'run-examples.ts'), database.url];
    const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
    endAfterTests(child);
    const [printed, faults] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    const outcomes = printed.split('\n').filter((line) => line.startsWith('{"example"'));
    const ran = outcomes.map((line) => JSON.parse(line) as { example: string; failure?: string });
    expect({ failed: ran.filter(({ failure }) => failure !== undefined), faults }).toEqual({ failed: [], faults: '' });
    expect(ran).toHaveLength(items.filter(({ example }) => example !== undefined).length);
  } finally {
    await database.drop();
  }
}, 300_000);

test('the document of the client begins with the eight lines', () => {
  const text = readFileSync(join(root, 'docs/client.md'), 'utf8');
  const lines = /```ts check\n([^]*?)```/.exec(text)?.[1]?.trim().split('\n') ?? [];
  expect(lines).toHaveLength(8);
  expect(text.indexOf('```ts check')).toBeLessThan(20);
});

test('the example of orders is 25 lines of code at most', () => {
  const text = readFileSync(join(root, 'examples/react-orders/app.tsx'), 'utf8');
  const code = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('//'));
  expect(code.length).toBeLessThanOrEqual(25);
  for (const path of ['examples/vue-orders/orders.vue', 'examples/svelte-orders/orders.svelte']) {
    expect(readFileSync(join(root, path), 'utf8').trim().split('\n').length).toBeLessThan(20);
  }
});
