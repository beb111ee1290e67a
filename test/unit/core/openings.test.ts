// Openings that fail half way: one of several channels is forbidden, cannot be opened, or cannot be read. An event stream
// over an ephemeral and a kept channel that failed so took the ephemeral one's count of live streams to -1. Its messages
// then reached nobody, and every publisher got `internal`, until its last subscriber left.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import type { Access } from '../../../src/core/access.ts';
import type { SyncAdapter } from '../../../src/core/sync-adapter.ts';
import type { ChannelName } from '../../../src/protocol/channel.ts';
import { createMetrics } from '../../../src/metrics/metrics.ts';
import { transportKinds } from '../../../src/app/transports.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { createHub, HandClock, idle, memoryAdapter, type Connected } from '../../support/hub.ts';

const channels = ['a', 'b', 'small:c', 'ephemeral:d', 'ephemeral:e'];
const faults = ['none', 'none', 'forbidden', 'undecided', 'open', 'read'] as const;
type Fault = (typeof faults)[number];

/** Fails as chance says: before the layer below has done anything, or with its answer lost on the way back. */
function failingAdapter(adapter: SyncAdapter, fails: (call: 'open' | 'read') => boolean): SyncAdapter {
  const away = (): never => {
    throw new RealtimeError('unavailable');
  };
  return new Proxy(adapter, {
    get(target, name: keyof SyncAdapter) {
      const member: unknown = target[name];
      if (name !== 'subscribe' && name !== 'history') {
        return typeof member === 'function' ? (member.bind(target) as unknown) : member;
      }
      return async (...args: never[]) => {
        await idle();
        const fail = fails(name === 'subscribe' ? 'open' : 'read');
        const answer = (target[name] as (...given: never[]) => unknown).apply(target, args);
        return fail ? away() : answer;
      };
    },
  });
}

const step = fc.record({
  transport: fc.constantFrom('websocket', 'sse'),
  picks: fc.uniqueArray(fc.nat(channels.length - 1), { minLength: 1, maxLength: channels.length }),
  resumes: fc.boolean(),
  fault: fc.constantFrom(...faults),
  cuts: fc.boolean(),
  together: fc.boolean(),
});

test('whatever fails while it opens, every count is as it was, and everyone hears everything', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 25, size: 'max' }), async (steps) => {
      let fault: Fault = 'none';
      const clock = new HandClock();
      const metrics = createMetrics({ node: 'n', version: '0', transports: transportKinds });
      const access: Pick<Access, 'may'> = {
        may: async (_identity, _action, channel) => {
          await idle();
          // The last of the channels in order, so that others are on their way already.
          if (channel !== 'small:c') return true;
          if (fault === 'undecided') throw new RealtimeError('unavailable');
          return fault !== 'forbidden';
        },
      };
      const adapter = failingAdapter(memoryAdapter(clock), (call) => fault === call);
      const { hub, subscribing, fanouts, logged, connect } = createHub({ clock, adapter, access, observer: metrics });
      const anchors = ['websocket', 'sse'].map((transport) => connect(transport));
      for (const { session } of anchors)
        await subscribing.subscribe(
          session,
          channels.map((channel) => ({ channel })),
        );
      const epoch = anchors[0]!.outlet.states().find(({ channel }) => channel === 'a')?.epoch ?? '';
      const open = new Set<Connected>(anchors);
      let published = 0;
      const publish = async (): Promise<void> => {
        published++;
        for (const channel of channels) await hub.publish({ channel, data: String(published), source: 'server' });
        await idle();
      };
      await publish();
      for (const { transport, picks, resumes, fault: next, cuts, together } of steps) {
        fault = next;
        const connected = connect(transport);
        const since = resumes ? { epoch, offset: 0 } : undefined;
        const wanted = picks.map((pick) => ({ channel: channels[pick] as ChannelName, since }));
        const requests = wanted.map(({ channel }) => ({ channel, resume: since && (() => since) }));
        const attempt = async (): Promise<void> =>
          together
            ? subscribing.subscribe(connected.session, requests)
            : subscribing.subscribeEach(connected.session, { type: 'subscribe', channels: wanted });
        const outcome = attempt().then(
          () => true,
          () => false,
        );
        if (cuts) {
          await idle();
          connected.outlet.cut();
        }
        const isOpen = await outcome;
        // As the transport does with a stream that could not be opened.
        if (!isOpen && transport === 'sse') connected.outlet.disconnect(1008, '');
        if (connected.outlet.ended === undefined) open.add(connected);
        fault = 'none';
        await publish();
      }
      for (let turns = 0; turns < 20; turns++) await idle();
      for (const each of open) if (each.session.closed) open.delete(each);
      let subscriptions = 0;
      for (const name of channels) {
        const { members } = await hub.open(name);
        const subscribed = [...open].filter(({ session }) => session.subscription(name) !== undefined);
        const joined = [...open].filter(({ outlet }) => outlet.joined.has(name));
        expect([name, members.size, members.live]).toEqual([name, subscribed.length, joined.length]);
        expect(joined).toEqual(subscribed);
        subscriptions += subscribed.length;
        for (const { outlet } of anchors) {
          const heard = outlet.told.flatMap((told) =>
            told.kind === 'message' && told.publication.channel === name ? [Number(told.publication.data)] : [],
          );
          expect([name, heard]).toEqual([name, Array.from({ length: published }, (_, index) => index + 1)]);
        }
      }
      expect([hub.subscriptionCount, hub.channelCount]).toEqual([subscriptions, channels.length]);
      // A count that went below zero made the metric throw.
      expect(logged).toEqual([]);
      const { body } = await metrics.render();
      expect(body).not.toMatch(/sobranie_(?:broadcast_failures_total|errors_total\\{code="internal"\\}) [1-9]/);
      for (const { outlet } of open) outlet.cut();
      await idle();
      expect([hub.subscriptionCount, hub.channelCount, ...fanouts.map((each) => each.channels)]).toEqual([0, 0, 0, 0]);
      metrics.close();
    }),
    { numRuns: process.env['LONG'] === '1' ? 3_000 : 250 },
  );
}, 60_000);
