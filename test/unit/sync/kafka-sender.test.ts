// What waits for Kafka is bounded, and what was sent waits no more.

import type { Producer } from '@platformatic/kafka';
import { expect, test } from 'bun:test';
import type { KafkaFailure } from '../../../src/kafka/failure.ts';
import { KafkaSender } from '../../../src/sync/kafka/sender.ts';

const mebibyte = Buffer.alloc(1 << 20);

function senderTo(send: () => Promise<unknown>): { sender: KafkaSender; lost: KafkaFailure[] } {
  const lost: KafkaFailure[] = [];
  const place = { topic: 't', key: Buffer.from('k') };
  const sender = new KafkaSender({ send } as unknown as Producer, place, (failure) => lost.push(failure));
  return { sender, lost };
}

function sent(sender: KafkaSender, value: Buffer): Promise<KafkaFailure | null> {
  return new Promise((done) => sender.send(value, done));
}

test('there is room again for what was sent, however much it was', async () => {
  const { sender } = senderTo(() => Promise.resolve());
  for (let count = 0; count < 100; count++) {
    expect(sender.hasRoom(mebibyte.length)).toBe(true);
    expect(await sent(sender, mebibyte)).toBeNull();
  }
});

test('past its bound nothing more is taken while Kafka does not answer', () => {
  const { sender } = senderTo(() => new Promise(() => undefined));
  let taken = 0;
  for (; taken < 100 && sender.hasRoom(mebibyte.length); taken++) sender.send(mebibyte, () => undefined);
  expect(taken).toBe(32);
});

test('a record that is too large fails alone; any other failure ends the connection', async () => {
  const failures = [Object.assign(new Error('too large'), { apiId: 'MESSAGE_TOO_LARGE' }), new Error('gone')];
  const { sender, lost } = senderTo(() => {
    const failure = failures.shift();
    return failure === undefined ? Promise.resolve() : Promise.reject(failure);
  });
  expect(await sent(sender, mebibyte)).toMatchObject({ code: 'MESSAGE_TOO_LARGE' });
  expect([sender.hasRoom(1), lost]).toEqual([true, []]);
  expect(await sent(sender, mebibyte)).not.toBeNull();
  expect([sender.hasRoom(1), lost.length]).toEqual([false, 1]);
  expect(await sent(sender, mebibyte)).not.toBeNull();
});
