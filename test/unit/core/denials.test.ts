// Rights that are checked again while the connection goes on: the verdict is about the subscription that it was asked for, and
// is told once.

import { expect, test } from 'bun:test';
import type { Access } from '../../../src/core/access.ts';
import { MemoryMembers } from '../../../src/sync/memory/presence.ts';
import { createHub, HandClock, idle } from '../../support/hub.ts';

test('a no to a subscription that was left meanwhile does not end the one that was allowed after it', async () => {
  const verdict = Promise.withResolvers<boolean>();
  let isHeld = false;
  const may: Access['may'] = () => (isHeld ? verdict.promise : true);
  const { connect, sessions, hub } = createHub({ access: { may } });
  const { session, outlet, send } = connect();
  await send({ type: 'subscribe', channel: 'a' });
  isHeld = true;
  const checking = sessions.reauthorize(undefined);
  await idle();
  isHeld = false;
  await send({ type: 'unsubscribe', channel: 'a' });
  await send({ type: 'subscribe', channel: 'a' });
  verdict.resolve(false);
  expect(await checking).toBe(0);
  await hub.publish({ channel: 'a', data: '1', source: 'server' });
  expect(session.subscription('a')?.isLive).toBe(true);
  expect(outlet.story('a')).toEqual([1]);
  expect(outlet.frames('unsubscribed').filter(({ reason }) => reason !== undefined)).toEqual([]);
});

// The second look found no member any more, and took that for the end of the subscription.
test('a member whose right has ended is told once, however many look at once', async () => {
  const clock = new HandClock();
  let isAllowed = true;
  const may: Access['may'] = async (_identity, action) => action !== 'presence' || isAllowed;
  const { connect, sessions, presence } = createHub({ clock, members: new MemoryMembers(clock), access: { may } });
  const { session, outlet, send } = connect();
  await send({ type: 'subscribe', channel: 'a', presence: true });
  expect(presence.has(session.id, 'a')).toBe(true);
  isAllowed = false;
  await Promise.all([sessions.reauthorize(undefined), sessions.reauthorize(undefined)]);
  expect(presence.has(session.id, 'a')).toBe(false);
  expect(session.subscription('a')?.isLive).toBe(true);
  expect(outlet.frames('error').map(({ code, channel }) => [code, channel])).toEqual([['forbidden', 'a']]);
  await presence.close();
});

test('a stream whose right to presence has ended is told that the channel is over, and hears of no error', async () => {
  const clock = new HandClock();
  let isAllowed = true;
  const may: Access['may'] = async (_identity, action) => action !== 'presence' || isAllowed;
  const { connect, sessions, subscribing, presence } = createHub({
    clock,
    members: new MemoryMembers(clock),
    access: { may },
  });
  const { session, outlet } = connect('sse');
  await subscribing.subscribe(session, [{ channel: 'a', presence: 'null' }, { channel: 'b' }]);
  isAllowed = false;
  expect(await sessions.reauthorize(undefined)).toBe(1);
  expect(outlet.frames('unsubscribed')).toMatchObject([{ channel: 'a', reason: 'forbidden' }]);
  expect(outlet.frames('error')).toEqual([]);
  expect(session.subscriptions.map(({ channel }) => channel)).toEqual(['b']);
  await presence.close();
});
