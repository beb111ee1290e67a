// The command `sobranie` as people and programs use it, against real servers.

import { afterAll, expect, test } from 'bun:test';
import { WebSocketClient } from '../support/clients.ts';
import { startNode, startNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { spawnCommand, spawnScript, spawnShell, type Environment, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { createProgram } from '../../src/cli/program.ts';

patient();

const servers: RunningServer[] = [];
const keys = { API_KEY: 'the-key-of-the-backend', ADMIN_KEY: 'the-key-of-the-operator' };
const secret = 'a secret for tests, long enough for all';

afterAll(async () => {
  for (const server of servers) await server.stop();
}, 60_000);

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Of `--json`. */
  readonly lines: () => Record<string, unknown>[];
}

async function sobranie(args: readonly string[], environment: Environment = {}): Promise<Ended> {
  const command = spawnCommand(args, environment);
  const code = await command.waitForExit(30_000);
  const stdout = command.stdout();
  const lines = (): Record<string, unknown>[] =>
    stdout
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { code, stdout, stderr: command.stderr(), lines };
}

async function start(environment: Environment): Promise<RunningServer> {
  const server = await startNode(environment);
  servers.push(server);
  return server;
}

test('what is published is tailed, counted and shown at its user', async () => {
  const { url: database } = await createDatabase({ migrated: true });
  const { url } = await start({ SYNC: 'memory', DATABASE_URL: database, JWT_SECRET: secret, ...keys });
  const at = { ...keys, SOBRANIE_URL: url };
  const { stdout: health } = await sobranie(['health'], { PORT: new URL(url).port });
  for (const check of ['sync', 'database', 'relay']) expect(health).toMatch(new RegExp(`^${check} +ok `, 'm'));
  expect((await sobranie(['health', '--json'], at)).lines()).toMatchObject([{ status: 'ok' }]);
  expect(await sobranie(['health', '--url', 'http://localhost:1'])).toMatchObject({ code: 1 });
  const first = await sobranie(['publish', 'news', '{"big": 12345678901234567890}', '--json'], at);
  expect(first.lines()).toMatchObject([{ channel: 'news', offset: 1 }]);
  // The key of the backend gets a ticket for the channels that are tailed.
  const tail = spawnCommand(['tail', 'news', 'alerts', '--history', '5', '--count', '3', '--json'], at);
  await tail.waitForOutput(/12345678901234567890/);
  await until(
    async () => {
      const { stdout } = await sobranie(['channels', '--json'], at);
      return stdout.includes('"news","subscribers":1') && stdout.includes('alerts');
    },
    'both are subscribed',
    20_000,
  );
  expect((await sobranie(['users', 'sobranie-tail', '--json'], at)).lines()).toMatchObject([
    { transport: 'websocket', channels: ['news', 'alerts'] },
  ]);
  expect((await sobranie(['publish', 'news', '--text', 'a "text"'], at)).stdout).toMatch(
    /^published to news: number 2/,
  );
  const typed = spawnShell(`echo '{"level": 3}' | bun src/sobranie.ts publish alerts`, at);
  expect(await typed.waitForExit(20_000)).toBe(0);
  expect(await tail.waitForExit(20_000)).toBe(0);
  const tailed = tail
    .stdout()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  expect(tailed).toMatchObject([
    { channel: 'news', offset: 1 },
    { channel: 'news', offset: 2, data: 'a "text"' },
    { channel: 'alerts', offset: 1, data: { level: 3 } },
  ]);
  // Its digits came in quotes, as the text that they were not.
  expect(tail.stdout()).toContain('"data":{"big":12345678901234567890}');
  expect((await sobranie(['channels'], at)).stdout).toBe('no channel has a subscriber\n');
  expect((await sobranie(['users', 'ann'], at)).stdout).toBe('ann is not online\n');
}, 90_000);

// It went on for ever: that its reader was gone, no line told it.
test('a tail ends with its reader', async () => {
  const at = { ...keys, SOBRANIE_URL: servers[0]!.url };
  const publish = (): Promise<Ended> => sobranie(['publish', 'piped', '1'], at);
  await publish();
  const piped = spawnShell('bun src/sobranie.ts tail piped --history 1 | head -1', at);
  await piped.waitForOutput(/piped/, 20_000);
  const ended = piped.waitForExit(20_000);
  await publish();
  expect(await ended).toBe(0);
}, 60_000);

test('a signed token opens what it grants', async () => {
  const [server] = servers;
  const signed = await sobranie(['token', '-U', 'ann', '-g', 'chat:*=subscribe,publish', '-e', '5m'], {
    JWT_SECRET: secret,
  });
  const socket = await WebSocketClient.open(server!.url, { query: `token=${signed.stdout.trim()}` });
  expect((await socket.next('welcome')).user).toBe('ann');
  expect((await socket.request({ type: 'subscribe', channel: 'chat:1' })).type).toBe('subscribed');
  expect(await socket.request({ type: 'subscribe', channel: 'other' })).toMatchObject({ code: 'forbidden' });
  await socket.cut();
});

test('tables are watched, listed and let go', async () => {
  const database = await createDatabase();
  const at = { DATABASE_URL: database.url };
  expect((await sobranie(['watch', 'orders'], at)).stderr).toContain('run `sobranie migrate` first');
  expect((await sobranie(['migrate'], at)).stdout).toMatch(/is up to date\n$/);
  expect((await sobranie(['watches'], at)).stdout).not.toContain('pg_class');
  const wrong = await sobranie(['watch', 'nothing'], at);
  expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringContaining('relation "nothing" does not exist')]);
  expect(wrong.stderr).not.toContain(new URL(database.url).password || 'no password');
  const watched = 'CREATE TABLE orders (id int PRIMARY KEY, customer text, secret text)';
  const { connect } = await import('../../src/database/connect.ts');
  const sql = connect(database.url, { applicationName: 'test', max: 1 });
  try {
    await sql.unsafe(watched);
    const columns = ['--columns', 'id, customer', '--channel', 'orders', 'orders:{id}'];
    expect((await sobranie(['watch', 'orders', ...columns], at)).code).toBe(0);
    // Lists were texts as PostgreSQL writes arrays, and times stood in quotes.
    expect((await sobranie(['watches', '--json'], at)).lines()).toMatchObject([
      { table: 'orders', channels: ['orders', 'orders:{id}'], columns: ['id', 'customer'], numbers: 'json' },
    ]);
    expect((await sobranie(['watches'], at)).stdout).toMatch(
      /^orders +orders orders:\{id\} +id customer +json +20[^"]+Z/m,
    );
    await sql`INSERT INTO orders VALUES (7, 'ann', 'hidden')`;
    const outbox = JSON.stringify(await sql`SELECT * FROM realtime.outbox`);
    expect(outbox).toContain('orders:7');
    expect(outbox).not.toContain('hidden');
    expect((await sobranie(['watch', 'orders', '--numbers', 'text'], at)).code).toBe(0);
    expect((await sobranie(['watches', '--json'], at)).lines()).toMatchObject([{ columns: null, numbers: 'text' }]);
    expect((await sobranie(['unwatch', 'orders'], at)).code).toBe(0);
    expect((await sobranie(['watches', '--json'], at)).stdout).not.toContain('orders');
  } finally {
    await sql.end({ timeout: 5 });
  }
  // Nobody can be asked here, so nothing is removed.
  const uninstall = await sobranie(['uninstall'], at);
  expect(uninstall.code).toBe(1);
  expect((await sobranie(['watches'], at)).code).toBe(0);
}, 90_000);

test('nodes are listed, and one drains when another is asked', async () => {
  const { url: DATABASE_URL } = await createDatabase({ migrated: true });
  const [one, two] = await startNodes(2, () => ({ SYNC: 'postgres', DATABASE_URL, DRAIN_WINDOW: '2', ...keys }));
  servers.push(one!);
  const at = { ...keys, SOBRANIE_URL: one!.url };
  await until(
    async () => {
      return (await sobranie(['nodes', '--json'], at)).lines().length === 2;
    },
    'both are known',
    20_000,
  );
  const socket = await WebSocketClient.open(two!.url);
  const drained = sobranie(['drain', 'node-2'], at);
  await socket.next('drain', 10_000);
  expect(await two!.waitForExit(20_000)).toBe(0);
  const ended = await drained;
  expect([ended.code, ended.stdout]).toEqual([0, 'node-2 is gone\n']);
  expect(ended.stderr).toMatch(/node-2 drains \d connections?\n/);
  const unknown = await sobranie(['drain', 'node-2'], at);
  expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining('There is no node of this name.')]);
  const refused = await sobranie(['drain', 'node-1'], { ...at, ADMIN_KEY: 'another-key-of-nobody' });
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('admin key')]);
  // The last one, which nobody can be asked about in the end.
  expect((await sobranie(['drain', 'node-1', '--json'], at)).lines()).toEqual([{ node: 'node-1', gone: true }]);
  expect(await one!.waitForExit(20_000)).toBe(0);
}, 90_000);

test('a worker that is drained comes back as another run', async () => {
  const { url: DATABASE_URL } = await createDatabase({ migrated: true });
  const server = await start({
    SYNC: 'postgres',
    DATABASE_URL,
    NODE_ID: 'w',
    WORKERS: '2',
    DRAIN_WINDOW: '1',
    ...keys,
  });
  const at = { ...keys, SOBRANIE_URL: server.url };
  const names = async (): Promise<string> => {
    const rows = (await sobranie(['nodes', '--json'], at)).lines();
    return rows.map(({ node }) => String(node)).join(' ');
  };
  await until(async () => (await names()) === 'w-1 w-2', 'both are known', 20_000);
  const drained = await sobranie(['drain', 'w-2'], at);
  expect([drained.code, drained.stdout]).toEqual([0, 'w-2 is gone\n']);
  await until(async () => (await names()) === 'w-1 w-2', 'it is back', 30_000);
}, 90_000);

test('wrong calls and faulty settings end with codes of their own', async () => {
  const calls: [string[], Environment, number, string][] = [
    [['nothing'], {}, 2, "unknown command 'nothing'"],
    [['publish'], {}, 2, "missing required argument 'channel'"],
    [['start', '--url', 'x'], {}, 2, 'unknown option'],
    [['publish', 'a', 'b'], {}, 2, 'the data is no JSON'],
    [['channels', '--url', 'localhost'], {}, 2, 'is no address'],
    [['channels', '--url', 'http://127.0.0.1:1'], {}, 1, 'does not answer'],
    [['watches'], {}, 78, 'DATABASE_URL is not set'],
    [['watches'], { DATABASE_URL: 'mysql://a:hidden@b/c' }, 78, 'DATABASE_URL'],
    [['token', '-U', 'ann'], {}, 1, 'JWT_SECRET is not set'],
    [['token', '-U', 'ann', '--secret', secret, '-g', 'a=read'], {}, 2, '"read" is no action'],
    [['token', '-U', 'ann', '--secret', secret, '-e', '99999999999999d'], {}, 2, 'is no time'],
    [['token', '-U', '', '--secret', secret], {}, 2, 'the user is not'],
    // The server refuses such a token; a claim that an option says was left out without a word.
    [['token', '-U', 'ann', '--secret', secret, '-g', 'a b=subscribe'], {}, 2, '"a b" is not a channel name'],
    [['token', '-U', 'ann', '--secret', secret, '-g', '{id}:a=subscribe'], {}, 2, 'has no captures'],
    [['token', '-U', 'ann', '--secret', secret, '--claims', '{"sub": "bob"}'], {}, 2, 'say --user instead'],
    // A variable that is not set: the tail was silent for ever, the others named an address that is not there.
    [['tail', ''], {}, 2, 'It is empty'],
    [['tail', 'news', ''], {}, 2, 'It is empty'],
    [['users', ''], {}, 2, 'It is empty'],
    [['drain', ''], {}, 2, 'It is empty'],
    [['watch', ''], {}, 2, 'It is empty'],
    [['watch', 'orders', '--numbers', 'exact'], {}, 2, 'Allowed choices are json, text'],
    [['channels', '--url', 'http://127.0.0.1:1?a=b'], {}, 2, 'is no address'],
    // What was no number was waited for without an end.
    [['tail', 'news', '--count', 'some'], {}, 2, 'is not a whole number'],
    [['tail', 'news', '--history', '0'], {}, 2, 'is not a whole number'],
    [['drain', 'node-1', '--timeout', '-1'], {}, 2, 'is not a whole number'],
    [['doctor', 'http://127.0.0.1:1', '--idle', '40s'], {}, 2, 'is not a whole number'],
    // A client tries for ever; nobody who looks at a terminal learns what is wrong.
    [['tail', 'news', '--url', 'http://127.0.0.1:1'], {}, 1, 'does not answer'],
    [['completion', 'csh'], {}, 2, 'bash, zsh, fish'],
  ];
  for (const [args, environment, code, message] of calls) {
    const ended = await sobranie(args, environment);
    expect([args.join(' '), ended.code, ended.stderr]).toEqual([
      args.join(' '),
      code,
      expect.stringContaining(message),
    ]);
    expect(ended.stderr).not.toContain('    at ');
    expect(ended.stderr).not.toContain('hidden');
  }
  // It listened where its caller did not expect it.
  const started = spawnScript('src/main.ts', {}, ['--port', '3001']);
  expect(await started.waitForExit(30_000)).toBe(2);
  expect(started.stderr()).toBe(
    '"--port": the server takes no arguments. Its settings come from the environment: PORT=3001 bun run start\n',
  );
  const forPrograms = await sobranie(['channels', '--json', '--url', 'http://127.0.0.1:1']);
  expect(JSON.parse(forPrograms.stderr)).toMatchObject({
    error: { message: expect.stringContaining('does not answer') },
  });
}, 90_000);

// Each command took whatever answered with 200 for its server: it ended with a stack, or said that it had published.
test('what answers in place of a server is said', async () => {
  const bodies: Record<string, string> = { page: '<h1>Welcome</h1>', json: '{"ok": true}' };
  const other = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: ({ url }) => {
      const kind = new URL(url).pathname.split('/')[1] ?? '';
      if (kind === 'moved') return Response.redirect('https://live.example.com/', 301);
      return new Response(bodies[kind]);
    },
  });
  const calls = [
    ...[['publish', 'a', '1'], ['channels'], ['users', 'ann'], ['nodes'], ['drain', 'n', '--no-wait'], ['tail', 'a']],
    ...[['tail', 'a', '--key', 'k'], ['health']],
  ];
  try {
    for (const args of calls) {
      for (const kind of Object.keys(bodies)) {
        const { code, stdout, stderr } = await sobranie([...args, '--url', new URL(kind, other.url).href]);
        expect([args, kind, code, stdout]).toEqual([args, kind, 1, '']);
        expect([args, kind, stderr]).toEqual([args, kind, expect.stringContaining('Sobranie server')]);
        expect(stderr).not.toContain('    at ');
      }
    }
    const moved = await sobranie(['publish', 'a', '1', '--url', new URL('moved', other.url).href]);
    expect([moved.code, moved.stderr]).toEqual([1, expect.stringContaining('leads to https://live.example.com')]);
  } finally {
    await other.stop(true);
  }
}, 120_000);

test('completions know every command', async () => {
  const names = createProgram().commands.map((command) => command.name());
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { stdout } = await sobranie(['completion', shell]);
    for (const name of names) expect(stdout).toContain(name);
  }
  const completes = spawnShell(
    `eval "$(bun src/sobranie.ts completion bash)"; COMP_WORDS=(sobranie dr); COMP_CWORD=1; _sobranie; echo "\${COMPREPLY[@]}"
    COMP_WORDS=(sobranie tail --h); COMP_CWORD=2; _sobranie; echo "\${COMPREPLY[@]}"`,
  );
  expect(await completes.waitForExit(20_000)).toBe(0);
  expect(completes.stdout()).toBe('drain\n--history\n');
}, 30_000);
