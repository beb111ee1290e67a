// Envelopes that travel in parts, as a notification is small: whole or not at all, whatever becomes of a part or a sender.

import { expect, test } from 'bun:test';
import type { Database } from '../../../src/database/connect.ts';
import { PostgresListener } from '../../../src/sync/postgres/listener.ts';
import { HandClock } from '../../support/hub.ts';

async function listening(): Promise<{
  listener: PostgresListener;
  hear: (payload: string) => void;
  heard: string[];
  sent: string[];
}> {
  const heard: string[] = [];
  const sent: string[] = [];
  let hear: (payload: string) => void = () => undefined;
  const client = {
    listen: (topic: string, listen: (payload: string) => void, connected?: () => void) => {
      if (topic.endsWith('_nodes')) hear = listen;
      connected?.();
      return Promise.resolve();
    },
    end: () => Promise.resolve(),
  };
  const sql = (_strings: TemplateStringsArray, ...values: readonly unknown[]): Promise<unknown> => {
    sent.push(String(values[1]));
    return Promise.resolve([]);
  };
  const listener = new PostgresListener(
    {
      connect: () => client as unknown as Database,
      sql: sql as unknown as Database,
      nodeId: 'own',
      clock: new HandClock(),
      canaryEveryMs: 1_000_000,
    },
    {
      connected: () => undefined,
      lost: () => undefined,
      appended: () => undefined,
      envelope: (text) => heard.push(text),
      peer: () => undefined,
    },
  );
  await listener.start({ topic: 't', epoch: 'e' });
  return { listener, hear: (payload) => hear(payload), heard, sent };
}

test('parts make an envelope when all of them come, in order', async () => {
  const { listener, hear, heard } = await listening();
  for (const payload of ['n.1 0 3 a', 'm.1 0 1 whole', 'n.1 1 3 b', 'n.1 2 3 c']) hear(payload);
  expect(heard).toEqual(['whole', 'abc']);
  // One was lost with the connection.
  for (const payload of ['n.2 0 3 a', 'n.2 2 3 c', 'n.3 1 2 b', 'n.4 0 2 a', 'n.4 1 2 b']) hear(payload);
  expect(heard).toEqual(['whole', 'abc', 'ab']);
  await listener.close();
});

test('parts of senders that died halfway are forgotten, the oldest first', async () => {
  const { listener, hear, heard } = await listening();
  for (let sender = 0; sender <= 64; sender++) hear(`n${sender}.1 0 2 a`);
  hear('n0.1 1 2 b');
  expect(heard).toEqual([]);
  hear('n64.1 1 2 b');
  expect(heard).toEqual(['ab']);
  await listener.close();
});

test('no character is cut in two, wherever a part ends', async () => {
  for (const before of [0, 1]) {
    const { listener, sent } = await listening();
    await listener.send('x'.repeat(before) + '👩'.repeat(5_000));
    expect(sent).toHaveLength(1);
    expect(sent[0]!.isWellFormed()).toBe(true);
    await listener.close();
  }
});
