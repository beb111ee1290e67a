// Connections that listen to Redis and break while they are made: a node that believed to hear everything then would be deaf
// for as long as it lives.

import { expect, test } from 'bun:test';
import type { Redis } from 'ioredis';
import { EventEmitter } from 'node:events';
import type { RedisTopology } from '../../../src/sync/redis/commands.ts';
import { readPage, type ReadReply } from '../../../src/sync/redis/history.ts';
import { RedisListeners } from '../../../src/sync/redis/listeners.ts';
import { HandClock, idle } from '../../support/hub.ts';

/** A connection of its own kind for each attempt. */
class FakeClient extends EventEmitter {
  status = 'wait';
  readonly topics: string[] = [];
  onSubscribe: () => Promise<void> = () => Promise.resolve();

  connect(): Promise<void> {
    this.status = 'ready';
    return Promise.resolve();
  }

  async subscribe(...topics: string[]): Promise<void> {
    await this.onSubscribe();
    this.topics.push(...topics);
  }

  /** The server is gone. */
  break(): void {
    this.status = 'end';
    this.emit('end');
  }

  disconnect(): void {
    this.status = 'end';
  }
}

function createStage() {
  const clock = new HandClock();
  const clients: FakeClient[] = [];
  const told: string[] = [];
  const prepare: { next: (client: FakeClient) => void } = { next: () => undefined };
  const topology: RedisTopology = {
    keys: ['master'],
    keyOf: () => 'master',
    createListener: () => {
      const client = new FakeClient();
      prepare.next(client);
      clients.push(client);
      return client as unknown as Redis;
    },
    leadsTo: () => true,
  };
  const listeners = new RedisListeners({
    sharded: false,
    clock,
    topology: () => Promise.resolve(topology),
    topics: () => ['a', 'b'],
    message: () => true,
    unclaimed: () => undefined,
    renewed: () => told.push('renewed'),
    lost: () => told.push('lost'),
    failed: () => told.push('failed'),
  });
  const pass = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) {
      clock.advance(3_000);
      await idle();
    }
  };
  return { listeners, clients, told, pass, prepare };
}

test('a connection that breaks while its topics are subscribed is made once more', async () => {
  const { listeners, clients, told, pass, prepare } = createStage();
  await listeners.start();
  expect([listeners.up, clients[0]?.topics]).toEqual([true, ['a', 'b']]);
  let breaks = 1;
  prepare.next = (client) => {
    client.onSubscribe = async () => {
      await Promise.resolve();
      if (breaks-- > 0) client.break();
    };
  };
  clients[0]!.break();
  await pass();
  expect([listeners.up, clients.length, clients[2]?.topics]).toEqual([true, 3, ['a', 'b']]);
  expect(told).toEqual(['lost', 'renewed']);
  listeners.close();
});

test('after a subscribe that failed all are made again, as nobody knows what is heard', async () => {
  const { listeners, clients, told, pass } = createStage();
  await listeners.start();
  clients[0]!.onSubscribe = () => Promise.reject(new Error('broken'));
  await expect(listeners.subscribe(['c'])).rejects.toThrow('broken');
  expect([listeners.up, told]).toEqual([false, ['lost']]);
  clients[0]!.onSubscribe = () => Promise.resolve();
  await pass();
  expect([listeners.up, told]).toEqual([true, ['lost', 'renewed']]);
  listeners.close();
});

test('a page ends with the head that came with it', () => {
  const entries = [1, 2, 3].map((offset) => `${offset}-0 1 \n"${offset}"`).join('\n');
  const reply: ReadReply = [Buffer.from('e'), Buffer.from('2'), Buffer.from(entries), 0];
  const page = readPage('a', reply, { since: { epoch: 'e', offset: 0 }, limit: 10, bytesMax: 1_000 });
  expect([page.publications.map(({ offset }) => offset), page.complete]).toEqual([[1, 2], true]);
});
