// Slices: a turn of the event loop takes on so much of what a crowd asks for, in the order in which it was asked, and what
// others ask for is served in between. Hundreds of handshakes that arrived at once were all answered at once: whoever
// published just then waited for up to half a second.

import { expect, test } from 'bun:test';
import { anonymous, everyoneAnonymous } from '../../../src/core/access.ts';
import { Slices } from '../../../src/core/slices.ts';
import { Origins } from '../../../src/http/origins.ts';
import { Admission } from '../../../src/transports/admission.ts';
import { RefusalLog } from '../../../src/transports/refusal-log.ts';
import { silentObserver, unlimited } from '../../support/doubles.ts';
import { createHub, HandClock } from '../../support/hub.ts';
import { RoughLog } from '../../support/rough-link.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a turn takes on what it may, and the next goes on in the order of the calls', async () => {
  const slices = new Slices(10);
  const done: number[] = [];
  const ask = (number: number, cost: number): void => {
    const waited = slices.take(cost);
    if (waited === undefined) done.push(number);
    else void waited.then(() => done.push(number));
  };
  for (let number = 0; number < 9; number++) ask(number, 4);
  expect(done).toEqual([0, 1, 2]);
  await turn();
  expect(done).toEqual([0, 1, 2, 3, 4, 5]);
  // Who comes meanwhile waits behind those who came before.
  ask(9, 4);
  await turn();
  expect(done).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  await turn();
  expect(done).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('what costs more than a turn takes a turn of its own', async () => {
  const slices = new Slices(10);
  expect(slices.take(1_000)).toBeUndefined();
  const second = slices.take(1_000);
  expect(second).toBeInstanceOf(Promise);
  await second;
});

test('of connections that arrive at once only some are let in at once, and all in a few turns', async () => {
  const { sessions, failures, slices, clock } = createHub();
  const admission = new Admission({
    sessions,
    slices,
    failures,
    limits: unlimited,
    observer: silentObserver,
    authenticate: everyoneAnonymous,
    origins: new Origins(undefined),
    connectionsMax: 1_000,
    isShuttingDown: () => false,
    addressOf: undefined,
    refusals: new RefusalLog({ write: () => undefined, clock, addressOf: () => undefined }),
  });
  const [crowd, atOnceMax, turnsMax] = [400, 60, 100];
  let opened = 0;
  const request = new Request('http://localhost/realtime/ws');
  const admitted = Array.from({ length: crowd }, () =>
    admission.admit(request, new URLSearchParams(), ({ identity }) => {
      expect(identity).toBe(anonymous);
      opened++;
    }),
  );
  const perTurn = [opened];
  for (let turns = 0; turns < turnsMax && opened < crowd; turns++) {
    const before = opened;
    await turn();
    perTurn.push(opened - before);
  }
  await Promise.all(admitted);
  expect(opened).toBe(crowd);
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(atOnceMax);
});

// A thousand channels that were read at once ended the wait of ten thousand subscribers in one turn of the loop.
test('of those who waited for the same page of the log some are answered at once, and all in a few turns', async () => {
  const clock = new HandClock();
  const log = new RoughLog(clock);
  const link = log.link();
  const { connect, rules } = createHub({ clock, adapter: link });
  log.memory.publish({ channel: 'a', rule: rules.for('a'), data: '0', at: clock.now() });
  log.memory.publish({ channel: 'a', rule: rules.for('a'), data: '0', at: clock.now() });
  const [crowd, atOnceMax, turnsMax] = [400, 60, 100];
  const { epoch } = log.memory.subscribe('a', rules.for('a')) ?? { epoch: '' };
  let answered = 0;
  for (let count = 0; count < crowd; count++) {
    const { session, outlet } = connect();
    outlet.onTold = ({ kind }) => void (answered += kind === 'subscribed' ? 1 : 0);
    session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 1 } }));
  }
  // The head, and later the page, are on their way until all wait for it.
  for (let turns = 0; turns < turnsMax && link.requests.length === 0; turns++) await turn();
  link.advance(0);
  link.advance(0);
  for (let turns = 0; turns < turnsMax; turns++) await turn();
  expect(answered).toBe(0);
  const perTurn: number[] = [];
  link.advance(0);
  link.advance(0);
  for (let turns = 0; turns < turnsMax && answered < crowd; turns++) {
    const before = answered;
    await turn();
    perTurn.push(answered - before);
  }
  expect(answered).toBe(crowd);
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(atOnceMax);
});

// 10,000 that left in one moment were taken out of their channels in one go: a publish waited for up to 0.9 s.
test('of connections that leave at once all count as gone at once, and leave their channels in a few turns', async () => {
  const { connect, hub, sessions } = createHub();
  const [crowd, atOnceMax, turnsMax] = [400, 120, 100];
  const all = Array.from({ length: crowd }, () => connect());
  for (const { session } of all) session.receive('{"type":"subscribe","channel":"a"}');
  for (let turns = 0; turns < turnsMax && hub.subscriptionCount < crowd; turns++) await turn();
  expect(hub.subscriptionCount).toBe(crowd);
  await turn();

  for (const { outlet } of all) outlet.cut();
  expect(sessions.size).toBe(0);
  const perTurn = [crowd - hub.subscriptionCount];
  for (let turns = 0; turns < turnsMax && hub.subscriptionCount > 0; turns++) {
    const before = hub.subscriptionCount;
    await turn();
    perTurn.push(before - hub.subscriptionCount);
  }
  expect(hub.subscriptionCount).toBe(0);
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(atOnceMax);
});

test('who is closed by a server that shuts down has left its channels at once', async () => {
  const { connect, hub, sessions } = createHub();
  const all = Array.from({ length: 400 }, () => connect());
  for (const { session } of all) session.receive('{"type":"subscribe","channel":"a"}');
  for (let turns = 0; turns < 100 && hub.subscriptionCount < all.length; turns++) await turn();
  sessions.closeAll();
  expect([sessions.size, hub.subscriptionCount, hub.channelCount]).toEqual([0, 0, 0]);
});
