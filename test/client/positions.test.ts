// Where a client stands in a channel: nothing that comes twice, late or again is told twice, and who leaves begins anew.

import { expect, test } from 'bun:test';
import { Sobranie } from '@sobranie/client';
import { seed } from '../support/random.ts';
import { FakeServer, World, type ClientFrame, type FakeSocket } from './simulation.ts';

function setUp() {
  const world = new World(seed);
  const server = new FakeServer();
  server.onCommand = (socket, { type, id, channel, since }) => {
    if (type !== 'subscribe') return;
    const state = { channel, recoverable: channel !== 'ephemeral', epoch: 'e', offset: 0 };
    const plain = { channel, recoverable: false };
    const answer = channel === 'ephemeral' ? plain : { ...state, ...(since === undefined ? {} : { recovered: true }) };
    socket.say({ type: 'subscribed', id, ...answer });
  };
  const client = new Sobranie('http://server', { platform: world.platform(server) });
  return { world, server, client };
}

const last = (server: FakeServer): FakeSocket => [...server.sockets].at(-1)!;
const sent = (server: FakeServer, type: string): ClientFrame[] => server.commands.filter((each) => each.type === type);
const message = (offset: number, channel = 'a') => ({ type: 'message', channel, offset, data: offset, at: 1 });

test('a message that comes twice is told once, and one that is late not at all', async () => {
  const { world, server, client } = setUp();
  const heard: unknown[] = [];
  client.channel('a').subscribe(({ data }) => heard.push(data));
  await world.pass(100);
  for (const offset of [1, 2, 2, 1, 3]) last(server).say(message(offset));
  expect(heard).toEqual([1, 2, 3]);
  expect(client.channel('a').position).toEqual({ epoch: 'e', offset: 3 });
  client.close();
});

test('rows that are older than a message that came before them lead nobody back', async () => {
  const { world, server, client } = setUp();
  const channel = client.channel('a');
  channel.subscribe(() => undefined);
  channel.askForRows();
  await world.pass(100);
  const rows = { type: 'snapshot', channel: 'a', rows: [], epoch: 'e', more: false };
  last(server).say({ ...rows, offset: 2 });
  expect(channel.position?.offset).toBe(2);
  last(server).say(message(5));
  last(server).say({ ...rows, offset: 3 });
  expect(channel.position?.offset).toBe(5);
  client.close();
});

test('who has left a channel and comes back begins anew', async () => {
  const { world, server, client } = setUp();
  const channel = client.channel('a');
  const stop = channel.subscribe(() => undefined);
  await world.pass(100);
  last(server).say(message(1));
  stop();
  await world.pass(1_000);
  expect(channel.position).toBeUndefined();
  client.channel('a').subscribe(() => undefined);
  await world.pass(100);
  expect(sent(server, 'subscribe').map(({ since }) => since)).toEqual([undefined, undefined]);
  client.close();
});

// The channel was told of the loss first, and then said that it keeps keys: the publication came twice.
test('what an ephemeral channel may have got is not sent again over the next connection', async () => {
  const { world, server, client } = setUp();
  client.channel('ephemeral').subscribe(() => undefined);
  await world.pass(100);
  const publishing = client.channel('ephemeral').publish(1);
  const failure = publishing.catch((error: unknown) => error);
  await world.pass(100);
  last(server).end(1006, '');
  await world.pass(60_000);
  expect(server.attempts.length).toBeGreaterThan(1);
  expect(sent(server, 'publish')).toHaveLength(1);
  expect(await failure).toMatchObject({ code: 'unavailable', retryable: true });
  client.close();
});
