// The TypeScript of the documents runs as it stands, each snippet in a process of its own, against a real server: only
// the server's address and port are others. Their types are checked by `blocks.test.ts`.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { jwtVerify } from 'jose';
import { createHmac } from 'node:crypto';
import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import postgres, { type Sql } from 'postgres';
import { Backend } from '@sobranie/server';
import { readDocuments, type CodeBlock } from '../support/documents.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { spawnProgram, startServer, type RunningProcess, type RunningServer } from '../support/process.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { projectRoot } from '../support/tidy/source-files.ts';
import { secret, tokenOf } from '../support/tokens.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
const allow = `allow: { subscribe: 'everyone', publish: 'everyone', history: 'everyone', presence: 'everyone' }`;
const rules = new TestRules(
  `{ channels: 'orders', recoverable: true, ${allow}, snapshot: ({ sql }) => sql\`select * from orders\` },
   { channels: '*', recoverable: true, ${allow} }`,
);

let database: TestDatabase;
let sql: Sql;
let server: RunningServer;
let app: Bun.Server<undefined>;
let backend: Backend;
/** What the application's backend was asked, such as `POST /orders/7/send`. */
const calls: string[] = [];

beforeAll(async () => {
  database = await createDatabase({ migrated: true });
  sql = postgres(database.url, { max: 2, onnotice: () => undefined });
  await sql`create table orders (id int primary key, customer_id int not null default 7, customer text, status text)`;
  await sql`select realtime.watch('orders')`;
  await sql`insert into orders values (1, 7, 'ann', 'new')`;
  server = await startServer({
    DATABASE_URL: database.url,
    SYNC: 'postgres',
    API_KEY: apiKey,
    CONFIG_FILE: rules.path,
    SHUTDOWN_TIMEOUT: '0',
  });
  backend = new Backend(server.url, { apiKey });
  app = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: answer });
}, 60_000);

afterAll(async () => {
  await app?.stop(true);
  await server?.kill9();
  await sql?.end({ timeout: 1 });
  await database?.drop();
}, 60_000);

/** The application of which the snippets are a part. */
async function answer(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  calls.push(`${request.method} ${pathname}`);
  if (pathname === '/token') return new Response(await tokenOf({ sub: 'ann' }));
  if (pathname === '/orders') return Response.json(await sql`select * from orders order by id`);
  if (pathname.endsWith('/send'))
    await sql`update orders set status = 'sent' where id = ${pathname.split('/')[2] ?? ''}`;
  return new Response(null, { status: 204 });
}

interface Run extends RunningProcess {
  readonly folder: string;
}

const snippets = readDocuments().flatMap(({ blocks }) =>
  blocks.filter(({ language, words }) => language === 'ts' && words.includes('check')),
);

/** `driver`: the text of a program that imports the snippet from `./snippet.ts`, or a file that is given its path. */
function start({ text }: CodeBlock, { driver, file }: { driver?: string; file?: string } = {}): Run {
  const folder = temporaryFolder('snippet');
  symlinkSync(join(projectRoot, 'node_modules'), join(folder, 'node_modules'));
  const paths = {
    '@sobranie/server/elysia': [join(projectRoot, 'src/guest/realtime.ts')],
    '@sobranie/server/testing': [join(projectRoot, 'src/guest/test-server.ts')],
    '@sobranie/*': [join(projectRoot, 'packages/*/src/index.ts')],
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: { paths } }));
  const snippet = join(folder, 'snippet.ts');
  writeFileSync(
    snippet,
    text.replaceAll('https://live.example.com', server.url).replace('.listen(3000)', '.listen(0)'),
  );
  const main = join(folder, 'main.ts');
  if (driver !== undefined) writeFileSync(main, driver);
  const program = [process.execPath, '--preload', join(import.meta.dir, 'snippet-prelude.ts')];
  const run = file === undefined ? [driver === undefined ? snippet : main] : [join(import.meta.dir, file), snippet];
  const environment = {
    APP_URL: app.url.origin,
    DATABASE_URL: database.url,
    SYNC: 'postgres',
    API_KEY: apiKey,
    JWT_SECRET: secret,
    HOOKS_SECRET: secret,
  };
  return Object.assign(spawnProgram([...program, ...run], environment, folder), { folder });
}

async function ends(run: Run): Promise<string> {
  expect(await run.waitForExit(), run.stderr()).toBe(0);
  expect(run.stderr()).toBe('');
  return run.stdout();
}

const heard = (channel: string): Promise<void> =>
  until(async () => (await backend.channels()).some((each) => each.channel === channel), `nobody in ${channel}`);

const asked = (call: string): Promise<void> => until(() => calls.includes(call), `nobody asks for ${call}`);

async function lastIn(channel: string): Promise<unknown> {
  return (await backend.history(channel, { limit: 1 })).messages.at(-1)?.data;
}

function signedHeaders(body: string): Record<string, string> {
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const signature = createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex');
  return { 'x-sobranie-timestamp': timestamp, 'x-sobranie-signature': `sha256=${signature}` };
}

const body = JSON.stringify({ events: [{ id: '1', event: 'user.online', user: 'ann', at: 1_764_000_000_000 }] });
const hooksDriver = () => `import { hooks } from './snippet.ts';
const ask = (headers) => hooks(new Request('http://here/', { method: 'POST', headers, body: ${JSON.stringify(body)} }));
console.log((await ask(${JSON.stringify(signedHeaders(body))})).status, (await ask({})).status);`;

/** Each by a text that it alone holds: what is done beside it, and what must come of it. */
const effects: Readonly<Record<string, (block: CodeBlock) => Promise<unknown>>> = {
  'const load = ()': async (block) => {
    const run = start(block);
    await run.waitForOutput(/live \[[^]*"new"/);
    await sql`update orders set status = 'packed' where id = 1`;
    await run.waitForOutput(/live \[[^]*"packed"/);
    await run.kill9();
  },
  "{ 'chat:*': Chat; news: string }": async (block) => {
    const run = start(block);
    await run.waitForOutput(/^\S+ \S+Z hello\n1\n$/);
    await run.kill9();
  },
  "for await (const event of client.channel('news')": async (block) => {
    const run = start(block);
    await heard('news');
    await backend.publish('news', 'extra');
    await run.waitForOutput(/^\d+ extra$/m);
    await run.kill9();
  },
  'await orders.remove(order': async (block) => {
    const run = start(block);
    await asked('POST /orders/7/send');
    await asked('DELETE /orders/7');
    await run.kill9();
    expect(run.stderr()).toBe('');
  },
  'export function useOrders': async (block) => {
    await sql`update orders set status = 'new'`;
    const run = start(block, { file: 'snippet-react.ts' });
    await run.waitForOutput(/"status":"sent".*"status":"live","state":"connected","here":1/);
    await asked('GET /orders/1/send');
    await run.kill9();
  },
  'const leave = presence.enter': async (block) => {
    const run = start(block);
    await run.waitForOutput(/\[/);
    await run.kill9();
  },
  "client.on('fallback'": async (block) => {
    const printed = await ends(start(block));
    expect(printed).toMatch(/^connecting /m);
    expect(printed).toMatch(/^connected websocket null undefined$/m);
    expect(printed).toMatch(/^closed /m);
    expect(await lastIn('chat:42')).toBe('hello');
  },
  'platform: { WebSocket: WebSocket': async (block) => {
    const run = start(block);
    const connections = async () => /^sobranie_ws_connections_active\{.*\} 1$/m.test(await textOf('/metrics'));
    await until(connections, 'it connects');
    await run.kill9();
  },
  'await backend.publish': async (block) => {
    expect(await ends(start(block))).toMatch(/^\S{20,}\n$/);
    expect(await lastIn('orders')).toEqual({ id: 7, status: 'sent' });
    expect(await lastIn('user:ann')).toEqual({ title: 'Your order is on its way' });
  },
  'database.query(watch(': async (block) => {
    await ends(start(block));
    await until(async () => JSON.stringify(await lastIn('chat:42')) === '{"text":"hello"}', 'it is published');
    const [row] = await sql`select channels from realtime.watches where "table" = 'orders'::regclass`;
    expect(row?.['channels']).toEqual(['orders', 'orders:{customer_id}']);
  },
  'await signToken(': async (block) => {
    const { payload } = await jwtVerify((await ends(start(block))).trim(), new TextEncoder().encode(secret));
    expect(payload).toMatchObject({ sub: 'ann', channels: { 'chat:*': ['subscribe', 'publish'] } });
  },
  'export async function hooks': async (block) => {
    expect(await ends(start(block, { driver: hooksDriver() }))).toBe('1 user.online ann\n200 401\n');
  },
  'const server = createServer(': async (block) => {
    const listen = 'server.listen(0, () => console.log(JSON.stringify(server.address())));';
    const run = start({ ...block, text: block.text.replace('server.listen(3000);', listen) });
    const [, port = ''] = await run.waitForOutput(/"port":(\d+)/);
    const ask = (headers: Record<string, string>, text: string): Promise<number> =>
      fetch(`http://127.0.0.1:${port}/hooks`, { method: 'POST', headers, body: text }).then(({ status }) => status);
    const signed = signedHeaders(body);
    expect(await Promise.all([ask(signed, body), ask(signed, `${body} `), ask({}, body)])).toEqual([200, 401, 401]);
    await run.kill9();
  },
  'new Elysia()': async (block) => {
    await backend.publish('orders', 'before');
    const run = start(block);
    await until(async () => JSON.stringify(await lastIn('orders')) === '{"id":7,"status":"sent"}', 'it publishes');
    await run.kill9();
  },
  'await using server = await startTestServer()': async (block) => {
    const run = start(block);
    await run.waitForOutput(/text: "hello"/);
    await run.kill9();
  },
};

async function textOf(path: string): Promise<string> {
  return (await fetch(server.url + path)).text();
}

test('each has an entry here', () => {
  const unknown = snippets.filter(({ text }) => Object.keys(effects).filter((key) => text.includes(key)).length !== 1);
  expect(unknown.map(({ place }) => place)).toEqual([]);
  expect(snippets).toHaveLength(Object.keys(effects).length);
});

test.each(snippets.map((block) => [block.place, block] as const))('%s', async (_place, block) => {
  const [key = ''] = Object.keys(effects).filter((each) => block.text.includes(each));
  await effects[key]?.(block);
});
