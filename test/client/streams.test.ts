// The client over event streams, where the server is a function that answers requests: each channel that is asked for is
// answered, rows come as often as they are asked for, and a token that does not come keeps nobody on the second transport.

import { expect, test } from 'bun:test';
import { liveTable, Sobranie, type Change, type SobranieOptions } from '@sobranie/client';
import { seed } from '../support/random.ts';
// It is loaded when it is needed, in real time, of which nothing is seen here.
import '../../packages/client/src/stream-link.ts';
import { FakeServer, World } from './simulation.ts';

interface Row {
  readonly id: number;
}

/** One stream that is open. */
interface Stream {
  readonly query: URLSearchParams;
  say(frame: object): void;
}

/** A server whose channels have a head each, and whose tables have the row `head`. */
function setUp(options: SobranieOptions = {}) {
  const world = new World(seed);
  const server = new FakeServer();
  const streams = new Set<Stream>();
  const opened: URLSearchParams[] = [];
  const heads = new Map<string, number>();
  const headOf = (channel: string): number => heads.get(channel) ?? 0;
  const open = (query: URLSearchParams, signal: AbortSignal): Response => {
    opened.push(query);
    const channels = (query.get('channels') ?? '').split(',');
    let controller: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({ start: (given) => void (controller = given) });
    const say = (frame: object): void =>
      controller.enqueue(new TextEncoder().encode(`event: x\ndata: ${JSON.stringify(frame)}\n\n`));
    const stream = { query, say };
    streams.add(stream);
    signal.addEventListener('abort', () => {
      if (streams.delete(stream)) controller.error(signal.reason);
    });
    const states = channels.map((channel) => ({
      channel,
      recoverable: true,
      epoch: 'e',
      offset: headOf(channel),
      ...(query.has('since') && { recovered: true }),
    }));
    say({ type: 'welcome', connection: 'c', user: 'ann', node: 'n', heartbeat: 15, channels: states });
    for (const channel of query.has('snapshot') ? channels : []) {
      const offset = headOf(channel);
      say({ type: 'snapshot', channel, rows: [{ id: offset }], epoch: 'e', offset, more: false });
    }
    return new Response(body);
  };
  const fetch = async (url: string, init?: RequestInit): Promise<Response> => {
    const { pathname, searchParams } = new URL(url);
    if (pathname !== '/realtime/events') return Response.json({}, { status: 405 });
    return open(searchParams, init?.signal ?? new AbortController().signal);
  };
  const client = new Sobranie<{ '*': Change<Row> }>('http://server', {
    transport: 'sse',
    ...options,
    platform: { ...world.platform(server), fetch },
  });
  /** To the streams that have the channel, as far as they are read. */
  const say = async (channel: string, frame: object): Promise<void> => {
    for (const stream of streams) if (stream.query.get('channels')?.split(',').includes(channel)) stream.say(frame);
    await world.pass(20);
  };
  const publish = (channel: string, data: unknown): Promise<void> => {
    heads.set(channel, headOf(channel) + 1);
    return say(channel, { type: 'message', channel, offset: headOf(channel), data, at: 1 });
  };
  /** In small steps, as requests and streams take turns of the real loop. In less time than a silent stream is left after. */
  const until = async (isSo: () => boolean, what: string, seconds = 5): Promise<void> => {
    for (let step = 0; step < 100 * seconds && !isSo(); step++) await world.pass(10);
    if (!isSo()) throw new Error(`not within ${seconds} s: ${what}`);
  };
  return { world, server, client, streams, opened, heads, say, publish, until };
}

const insert = (id: number): Change<Row> => ({
  action: 'INSERT',
  schema: 'public',
  table: 't',
  data: { id },
  old: null,
});

// The plan of streams was the same as before, so nothing was asked, and the channel waited for an answer for ever.
test('a channel that is left and wanted again in the same moment is live again', async () => {
  const { client, publish, until } = setUp();
  const channel = client.channel('a');
  const stop = channel.subscribe(() => undefined);
  await until(() => channel.state === 'live', 'it is live');
  const got: unknown[] = [];
  channel.on('state', (state) => state === 'idle' && channel.subscribe(({ data }) => got.push(data)));
  stop();
  await until(() => channel.state === 'joining', 'it is left and wanted again');
  await until(() => channel.state === 'live', 'it is live again');
  await publish('a', insert(1));
  await until(() => got.length > 0, 'a message comes');
  expect(got).toEqual([insert(1)]);
  client.close();
});

// Over a stream that goes on with its other channels, the one that had ended never came back.
test('a channel whose right was taken and given back is live again', async () => {
  const { client, say, until } = setUp();
  client.channel('b').subscribe(() => undefined);
  const channel = client.channel('a');
  const stop = channel.subscribe(() => undefined);
  await until(() => channel.state === 'live', 'it is live');
  await say('a', { type: 'unsubscribed', channel: 'a', reason: 'forbidden' });
  await until(() => channel.state === 'failed', 'it has failed');
  stop();
  await until(() => channel.state === 'idle', 'it is left');
  channel.subscribe(() => undefined);
  await until(() => channel.state === 'live', 'it is live again');
  client.close();
});

// The second table opened the stream of both anew. It asked for the rows of the first one again, which that one had no use
// for; what had been published in between was in no message.
test('a table misses nothing when another one is shown beside it', async () => {
  const { client, heads, opened, until } = setUp();
  const one = liveTable(client, 'one', { key: 'id' });
  one.subscribe(() => undefined);
  await until(() => one.status === 'live', 'the first has its rows');
  expect(one.rows).toEqual([{ id: 0 }]);
  const other = liveTable(client, 'other', { key: 'id' });
  other.subscribe(() => undefined);
  // While no stream is open.
  heads.set('one', 3);
  await until(() => other.status === 'live', 'the other has its rows');
  const [first, ...later] = opened.filter((query) => query.get('channels')?.includes('one'));
  expect([first?.has('snapshot'), first?.has('since')]).toEqual([true, false]);
  expect(later.map((query) => [query.has('snapshot'), query.has('since')])).toEqual([[false, true]]);
  client.close();
});

// The stream had been opened for rows already, so it was left as it was, and none came: the table was stale for ever.
test('a table gets its rows again after a gap in the midst of a stream', async () => {
  const { client, say, heads, until } = setUp();
  const table = liveTable(client, 't', { key: 'id' });
  table.subscribe(() => undefined);
  await until(() => table.status === 'live', 'it has its rows');
  heads.set('t', 7);
  await say('t', { type: 'gap', channel: 't', epoch: 'e', offset: 7, reason: 'overflow' });
  await until(() => table.rows[0]?.id === 7, 'the rows are here');
  expect([table.status, table.rows]).toEqual(['live', [{ id: 7 }]]);
  client.close();
});

// It was awaited without an end, and the check that would lead back to WebSocket was not made again.
test('a token that does not come keeps nobody on event streams', async () => {
  let asked = 0;
  const token = (): Promise<string> | string => (++asked === 3 ? new Promise(() => undefined) : 'token');
  const { server, client, until } = setUp({ transport: 'auto', token });
  server.isUp = false;
  const channel = client.channel('a');
  channel.subscribe(() => undefined);
  await until(() => channel.state === 'live', 'it is live');
  expect(client.status.transport).toBe('sse');
  server.isUp = true;
  const isBack = (): boolean => client.status.transport === 'websocket' && client.status.state === 'connected';
  await until(isBack, 'it is back', 40);
  expect(asked).toBeGreaterThan(3);
  client.close();
});
