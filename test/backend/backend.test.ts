// What backends call, by one suite against a real server: in this Bun, and in Node as it is published. And the SQL that
// goes through an own connection to the database.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createHmac } from 'node:crypto';
import { join } from 'node:path';
import postgres from 'postgres';
import { Backend, send, unwatch, verifyHook, watch } from '@sobranie/server';
import { endAfterTests, temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { secret } from '../support/tokens.ts';
import { cases, perform } from './cases.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
let database: TestDatabase;
let server: RunningServer;
const failures = new Map<string, Map<string, string>>();

beforeAll(async () => {
  database = await createDatabase({ migrated: true });
  server = await startServer({
    DATABASE_URL: database.url,
    SYNC: 'postgres',
    API_KEY: apiKey,
    JWT_SECRET: secret,
    RATE_LIMIT_PER_MINUTE: '0',
    BROADCAST_INTERVAL: '0',
    SHUTDOWN_TIMEOUT: '0',
  });
  await Promise.all([inBun(), inNode()]);
}, 60_000);

afterAll(async () => {
  await server.stop();
  await database.drop();
}, 60_000);

async function inBun(): Promise<void> {
  const told = new Map<string, string>();
  failures.set('Bun', told);
  const given = { url: server.url, apiKey, secret, run: 'bun' };
  await perform(given, ({ title, failure }) => told.set(title, failure));
}

async function inNode(): Promise<void> {
  const told = new Map<string, string>();
  failures.set('Node', told);
  const { outputs } = await Bun.build({
    entrypoints: [join(import.meta.dir, 'run-in-node.ts')],
    target: 'node',
    format: 'esm',
    outdir: temporaryFolder('node'),
    naming: '[name].mjs',
  });
  const node = Bun.which('node');
  if (node === null) throw new Error('Node is missing: install the package "nodejs", version 20 or newer.');
  const command = [node, outputs[0]?.path ?? '', server.url, apiKey, secret];
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'inherit' });
  endAfterTests(child);
  for (const line of (await child.stdout.text()).trim().split('\n')) {
    const { title, failure } = JSON.parse(line) as { title: string; failure: string };
    told.set(title, failure);
  }
}

describe.each(['Bun', 'Node'])('in %s', (runtime) => {
  test.each(Object.keys(cases))('%s', (title) => {
    expect(failures.get(runtime)?.get(title)).toBe('');
  });
});

test('the SQL watches, publishes with the transaction, and ends a watch', async () => {
  const sql = postgres(database.url, { max: 1, onnotice: () => undefined });
  const run = ({ text, values }: { text: string; values: unknown[] }) => sql.unsafe(text, values as string[]);
  try {
    const backend = new Backend(server.url, { apiKey });
    await sql`create table "odd; name" (id bigint primary key, owner text, secret text)`;
    await run(watch('public."odd; name"', { channels: ['odd', 'odd:{owner}'], columns: ['id'], numbers: 'text' }));
    await sql`insert into "odd; name" values (9007199254740993, 'ann', 'hidden')`;
    await run(send('letters', { it: "'s", not: '"; drop' }, 'first'));
    await run(send('letters', 'never', 'first'));
    await sql
      .begin(async (transaction) => {
        const { text, values } = send('letters', 'rolled back');
        await transaction.unsafe(text, values as string[]);
        throw new Error('undone');
      })
      .catch((error: unknown) => expect(String(error)).toContain('undone'));
    await run(unwatch('public."odd; name"'));
    await sql`insert into "odd; name" values (2, 'ann', 'hidden')`;
    await run(send('letters', null));
    await until(async () => (await backend.history('letters')).messages.length === 2, 'both letters');
    const letters = await backend.history('letters');
    expect(letters.messages.map(({ data }) => data)).toEqual([{ it: "'s", not: '"; drop' }, null]);
    for (const channel of ['odd', 'odd:ann']) {
      const { messages } = await backend.history(channel);
      expect(messages.map(({ data }) => (data as { data: unknown }).data)).toEqual([{ id: '9007199254740993' }]);
    }
    expect(() => send('letters', undefined)).toThrow(TypeError);
  } finally {
    await sql.end({ timeout: 1 });
  }
});

test('events of the hooks are read only as the server signs them', async () => {
  const at = (seconds: number) => String(Math.floor(Date.now() / 1_000) + seconds);
  const events = [{ id: '1', event: 'user.online', user: 'ünï', at: 1_764_000_000_000 }] as const;
  const body = JSON.stringify({ events });
  const signed = (timestamp: string, text = body, key = secret) => {
    const signature = createHmac('sha256', key).update(`${timestamp}.${text}`).digest('hex');
    return { 'x-sobranie-timestamp': timestamp, 'x-sobranie-signature': `sha256=${signature}` };
  };
  const read = (headers: Record<string, string>) =>
    verifyHook(new Request('http://backend/hooks', { method: 'POST', body, headers }), { secret });
  expect(await read(signed(at(0)))).toEqual([...events]);
  expect(await read(signed(at(-290)))).toEqual([...events]);
  const forged = [
    {},
    signed(at(-400)),
    signed(at(400)),
    signed(at(0), '{}'),
    signed(at(0), body, 'another'),
    signed('now'),
    { ...signed(at(0)), 'x-sobranie-timestamp': at(-5) },
    { ...signed(at(0)), 'x-sobranie-signature': 'sha256=' },
  ];
  for (const headers of forged) expect(await read(headers as Record<string, string>)).toBeUndefined();
});
