// The wire's document is true: its examples are frames that the code reads and writes, its tables say what the code
// says, and the client in it is one that works.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { join } from 'node:path';
import { channelLengthMax, channelPart } from '../../../src/protocol/channel.ts';
import { errorCodes } from '../../../src/protocol/codes.ts';
import { commandTypes, decodeCommand, isRefused } from '../../../src/protocol/commands.ts';
import { decodeCursor } from '../../../src/protocol/cursor.ts';
import { settingsByKey } from '../../../src/settings/table.ts';
import { keepAliveSeconds } from '../../../src/transports/event-fanout.ts';
import { startServer, type RunningServer } from '../../support/process.ts';

const text = await Bun.file(join(import.meta.dir, '../../../src/protocol/PROTOCOL.md')).text();

function blocks(language: string): string[] {
  return Array.from(
    text.matchAll(new RegExp(`\`\`\`${language}(?: [^\\n]*)?\\n(.*?)\`\`\``, 'gs')),
    (match) => match[1] ?? '',
  );
}

/** The objects of a block, each of which begins at a line's start. */
function objects(block: string): Readonly<Record<string, unknown>>[] {
  return block.split(/\n(?=\{)/).map((each) => JSON.parse(each) as Record<string, unknown>);
}

const both: readonly string[] = ['history', 'presence'];

test('every example of a command is a command, and every command has an example', () => {
  const examples = blocks('json').flatMap(objects);
  // These are replies too.
  const commands = examples.filter(
    ({ type }) => commandTypes.some((known) => known === type) && !both.includes(String(type)),
  );
  const shown = new Set(commands.map(({ type }) => type));
  expect(commandTypes.filter((type) => !shown.has(type) && !both.includes(type))).toEqual([]);
  for (const command of commands) expect(isRefused(decodeCommand(JSON.stringify(command)))).toBe(false);
  for (const type of both) {
    const [example] = examples.filter((each) => each['type'] === type && each['limit'] !== undefined);
    expect(isRefused(decodeCommand(JSON.stringify(example)))).toBe(false);
  }
});

test('the table of errors is the table of the code', () => {
  const rows = Array.from(text.matchAll(/^\| `(\w+)` +\|[^|]*\| (yes|no) +\| (\d+) +\|$/gm));
  const written = rows.map(([, code, retryable, status]) => [code, retryable === 'yes', Number(status)]);
  const coded = Object.entries(errorCodes).map(([code, { retryable, status }]) => [code, retryable, status]);
  expect<unknown>(written).toEqual(coded);
});

test('limits are those of the code', () => {
  expect(text).toContain(`1 to ${channelLengthMax} characters of`);
});

test('its function for values in names, and its examples of them, are as the code has it', () => {
  const [source = ''] = blocks('js').filter((block) => block.includes('function channelPart'));
  // oxlint-disable-next-line typescript/no-implied-eval
  const make = new Function(`${source}; return channelPart;`) as () => (value: string) => string;
  const documented = make();
  const rows = Array.from(text.matchAll(/^\| `(.*?)` +\| `user:([^…].*?)` +\|$/gm));
  expect(rows.length).toBe(5);
  for (const [, value = '', part] of rows) {
    const unescaped = value.replace('\\|', '|');
    expect<unknown>([documented(unescaped), channelPart(unescaped)]).toEqual([part, part]);
  }
  const marks = Array.from({ length: 0x250 }, (_, code) => String.fromCharCode(code)).join('');
  expect(documented(marks)).toBe(channelPart(marks));
});

test('the heartbeat in its examples is the default', () => {
  const shown = Array.from(text.matchAll(/"heartbeat": ?(\d+)/g), (match) => match[1]);
  expect(shown).toEqual([settingsByKey.heartbeat.default, String(keepAliveSeconds)]);
});

test('the cursors in it are cursors', () => {
  const cursors = Array.from(text.matchAll(/^id: (.*)$/gm), (match) => match[1] ?? '');
  const entries = cursors.map((cursor) => decodeCursor(cursor)?.entry('chat:42', 'k3f9a0'));
  expect(entries).toEqual([
    { kind: 'offset', offset: 21 },
    { kind: 'offset', offset: 22 },
  ]);
});

let server: RunningServer;
beforeAll(async () => {
  server = await startServer({ SYNC: 'memory', BROADCAST_INTERVAL: '0' });
}, 30_000);
afterAll(async () => {
  await server.kill9();
}, 30_000);

async function publish(data: unknown): Promise<void> {
  const response = await fetch(`${server.url}/realtime/publish`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ channel: 'chat:doc', data }),
  });
  expect(response.status).toBe(200);
}

// A client that is cut must resume: the sockets it makes are recorded, so that the test can cut one under it.
test('its client hears everything once, in order, also over a cut', async () => {
  const [source = ''] = blocks('js').filter((block) => block.includes('function connect'));
  const sockets: WebSocket[] = [];
  class RecordedSocket extends WebSocket {
    constructor(url: string) {
      super(url);
      sockets.push(this);
    }
  }
  // The document's own text is what is tested.
  // oxlint-disable-next-line typescript/no-implied-eval
  const make = new Function('WebSocket', `${source}; return connect;`) as (
    socket: typeof WebSocket,
  ) => (url: string, channels: string[], on: (frame: { type: string; data?: unknown }) => void) => void;
  const heard: unknown[] = [];
  const waiting: (() => void)[] = [];
  const types: string[] = [];
  make(RecordedSocket as unknown as typeof WebSocket)(
    `${server.url.replace('http', 'ws')}/realtime/ws`,
    ['chat:doc'],
    (frame) => {
      types.push(frame.type);
      if (frame.type === 'message') heard.push(frame.data);
      for (const wake of waiting.splice(0)) wake();
    },
  );
  const until = async (condition: () => boolean) => {
    const deadline = performance.now() + 10_000;
    while (!condition()) {
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`not in time; heard ${JSON.stringify(types)}`);
      await Promise.race([new Promise<void>((resolve) => waiting.push(resolve)), Bun.sleep(left)]);
    }
  };
  await until(() => types.includes('subscribed'));
  await publish(1);
  await until(() => heard.length === 1);
  sockets[0]?.close(1000);
  await publish(2);
  await publish(3);
  await until(() => heard.length === 3);
  await publish(4);
  await until(() => heard.length === 4);
  expect(heard).toEqual([1, 2, 3, 4]);
  expect(types.filter((type) => type === 'gap')).toEqual([]);
  expect(sockets.length).toBeGreaterThan(1);
  for (const socket of sockets) {
    // It would reconnect for as long as the tests run.
    socket.onclose = null;
    socket.close(1000);
  }
}, 20_000);
