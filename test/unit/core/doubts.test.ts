// Rights that cannot be checked again, since whoever decides does not answer. Three of six channels of a connection ended
// with `unavailable` after a short stall of the database. It stayed open and mute: nobody came back to them.

import { describe, expect, test } from 'bun:test';
import type { Access } from '../../../src/core/access.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { createHub, HandClock, idle, type Connected, type HubHarness } from '../../support/hub.ts';

type Answer = 'yes' | 'no' | 'away' | 'late';

interface Stage extends HubHarness {
  /** Of every check from now on. */
  answer: (answer: Answer) => void;
  /** What is late is answered. */
  arrive: (isAllowed: boolean) => Promise<void>;
  publish(channel: string, ...data: number[]): Promise<void>;
  /** Lets so much time pass, step by step. */
  wait(milliseconds: number): Promise<void>;
  subscriber(transport: string, ...channels: string[]): Promise<Connected>;
}

function createStage(): Stage {
  let told: Answer = 'yes';
  const late: ((isAllowed: boolean) => void)[] = [];
  const access: Pick<Access, 'may'> = {
    may: () => {
      if (told === 'away') return Promise.reject(new RealtimeError('unavailable'));
      return told === 'late' ? new Promise((resolve) => late.push(resolve)) : Promise.resolve(told === 'yes');
    },
  };
  const clock = new HandClock();
  const harness = createHub({ clock, access });
  return {
    ...harness,
    answer: (answer) => (told = answer),
    async arrive(isAllowed) {
      for (const resolve of late.splice(0)) resolve(isAllowed);
      await idle();
    },
    async publish(channel, ...data) {
      for (const each of data) await harness.hub.publish({ channel, data: String(each), source: 'server' });
      await idle();
    },
    async wait(milliseconds) {
      for (let passed = 0; passed < milliseconds; passed += 100) {
        clock.advance(100);
        await idle();
      }
    },
    async subscriber(transport, ...channels) {
      const connected = harness.connect(transport);
      await harness.subscribing.subscribe(
        connected.session,
        channels.map((channel) => ({ channel })),
      );
      return connected;
    },
  };
}

function heard({ outlet }: Connected, channel: string): unknown[] {
  return outlet.told.flatMap((told) => {
    if (told.kind !== 'message' || told.publication.channel !== channel) return [];
    return [Number(told.publication.data)];
  });
}

describe.each(['websocket', 'sse'])('over %s', (transport) => {
  test('nothing is heard on a guess, and all of it once the answer is yes', async () => {
    const { answer, publish, wait, subscriber, sessions } = createStage();
    const connected = await subscriber(transport, 'a', 'b', 'ephemeral:c');
    await publish('a', 1);
    answer('away');
    expect(await sessions.reauthorize(undefined)).toBe(0);
    for (const channel of ['a', 'b', 'ephemeral:c']) await publish(channel, 2, 3);
    await wait(1_000);
    expect(connected.outlet.joined.size).toBe(0);
    expect([heard(connected, 'a'), heard(connected, 'b')]).toEqual([[1], []]);
    answer('yes');
    await wait(2_500);
    for (const channel of ['a', 'b', 'ephemeral:c']) await publish(channel, 4);
    expect(heard(connected, 'a')).toEqual([1, 2, 3, 4]);
    expect(heard(connected, 'b')).toEqual([2, 3, 4]);
    // Nothing is kept of it.
    expect(heard(connected, 'ephemeral:c')).toEqual([4]);
    expect(connected.outlet.ended).toBeUndefined();
    expect(connected.outlet.told.filter(({ kind }) => kind === 'gap')).toEqual([]);
  });

  test('a no ends it, with nothing of what was published meanwhile', async () => {
    const { answer, publish, wait, subscriber, sessions, hub } = createStage();
    const connected = await subscriber(transport, 'a', 'b');
    answer('away');
    await sessions.reauthorize(undefined);
    await publish('a', 1);
    answer('no');
    await wait(2_500);
    expect(connected.outlet.frames('unsubscribed').map(({ channel, reason }) => [channel, reason])).toEqual([
      ['a', 'forbidden'],
      ['b', 'forbidden'],
    ]);
    expect(heard(connected, 'a')).toEqual([]);
    expect(hub.subscriptionCount).toBe(0);
  });

  test('no answer for some seconds ends the connection, so that its client comes back', async () => {
    const { answer, publish, wait, subscriber, sessions, hub } = createStage();
    const connected = await subscriber(transport, 'a', 'b');
    answer('away');
    await sessions.reauthorize(undefined);
    await wait(4_000);
    expect(connected.outlet.ended).toBeUndefined();
    await publish('a', 1);
    await wait(5_000);
    expect(connected.outlet.ended).toEqual({ code: 1013, reason: 'unavailable' });
    expect(heard(connected, 'a')).toEqual([]);
    expect([hub.subscriptionCount, hub.channelCount]).toEqual([0, 0]);
    const errors = connected.outlet.frames('error').map(({ code }) => code);
    expect(errors).toEqual(transport === 'sse' ? [] : ['unavailable']);
  });

  test('a log that was lost meanwhile is a gap', async () => {
    const { answer, publish, wait, subscriber, sessions, hub } = createStage();
    const connected = await subscriber(transport, 'small:a');
    await publish('small:a', 1);
    answer('away');
    await sessions.reauthorize(undefined);
    // More than the channel keeps.
    await publish('small:a', 2, 3, 4, 5, 6, 7);
    answer('yes');
    await wait(2_500);
    expect(connected.outlet.story('small:a')).toEqual([1, 'gap:trimmed@4', 5, 6, 7]);
    expect(hub.subscriptionCount).toBe(1);
  });
});

test('one who leaves in doubt has left, and one who is cut leaves nothing behind', async () => {
  const { answer, publish, wait, subscriber, sessions, hub } = createStage();
  const [leaver, cut] = [await subscriber('websocket', 'a'), await subscriber('sse', 'a')];
  answer('away');
  await sessions.reauthorize(undefined);
  await leaver.send({ type: 'unsubscribe', id: 1, channel: 'a' });
  cut.outlet.cut();
  answer('yes');
  await publish('a', 1);
  await wait(10_000);
  expect([heard(leaver, 'a'), heard(cut, 'a')]).toEqual([[], []]);
  expect([leaver.outlet.ended, hub.channelCount]).toEqual([undefined, 0]);
});

test.each(['yes', 'no'])(
  'one who leaves while it is asked about leaves nothing, if the answer is a %s',
  async (text) => {
    const isAllowed = text === 'yes';
    const { answer, arrive, publish, wait, subscriber, sessions, hub } = createStage();
    const [leaver, stays] = [await subscriber('websocket', 'a'), await subscriber('websocket', 'a')];
    answer('away');
    await sessions.reauthorize(undefined);
    answer('late');
    await wait(1_500);
    answer('yes');
    await leaver.send({ type: 'unsubscribe', channel: 'a' });
    await leaver.send({ type: 'subscribe', channel: 'a' });
    await arrive(isAllowed);
    await wait(2_500);
    await publish('a', 1);
    expect([heard(leaver, 'a'), heard(stays, 'a')]).toEqual([[1], isAllowed ? [1] : []]);
    expect(leaver.outlet.frames('unsubscribed').filter(({ reason }) => reason !== undefined)).toEqual([]);
    const { members } = await hub.open('a');
    expect([members.size, members.live, members.recoveries]).toEqual([isAllowed ? 2 : 1, isAllowed ? 2 : 1, undefined]);
  },
);

test('doubts that come twice end once', async () => {
  const { answer, publish, wait, subscriber, sessions, hub } = createStage();
  const connected = await subscriber('websocket', 'a');
  answer('away');
  await Promise.all([sessions.reauthorize(undefined), sessions.reauthorize(undefined)]);
  await publish('a', 1);
  await sessions.reauthorize(undefined);
  answer('yes');
  await wait(3_000);
  await publish('a', 2);
  expect(heard(connected, 'a')).toEqual([1, 2]);
  const { members } = await hub.open('a');
  expect([members.size, members.live]).toEqual([1, 1]);
});
