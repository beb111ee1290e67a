// Rights that change at any moment: whatever a connection is doing then, nothing that was published to a channel after
// its right had ended reaches it. Answers, openings and history come as late as chance wants.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import type { Access } from '../../../src/core/access.ts';
import type { SyncAdapter } from '../../../src/core/sync-adapter.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { createHub, HandClock, idle, memoryAdapter } from '../../support/hub.ts';

/** Whatever it holds back goes on in an order of its own when it is let go. */
class Gate {
  readonly #held: (() => void)[] = [];

  pass(): Promise<void> {
    return new Promise((resolve) => this.#held.push(resolve));
  }

  /** Lets one go, chosen by the number; false when none waits. */
  release(choice: number): boolean {
    const [next] = this.#held.splice(choice % Math.max(1, this.#held.length), 1);
    next?.();
    return next !== undefined;
  }
}

/** Answers late, and as the right was when it was asked for. */
class LateAccess implements Access {
  generation = 0;
  readonly denied = new Set<string>();
  readonly #gate: Gate;

  constructor(gate: Gate) {
    this.#gate = gate;
  }

  async may(_identity: unknown, _action: unknown, channel: string): Promise<boolean> {
    const allowed = !this.denied.has(channel);
    const { generation } = this;
    await this.#gate.pass();
    if (channel === 'broken' && !allowed) throw new RealtimeError('unavailable');
    return generation === this.generation ? allowed : this.may(_identity, _action, channel);
  }

  joined(): readonly string[] {
    return [];
  }

  membersMax(): number {
    return 0;
  }

  subscribersMax(): undefined {
    return undefined;
  }

  async renew(): Promise<void> {
    await this.#gate.pass();
    this.generation++;
  }
}

function lateAdapter(adapter: SyncAdapter, gate: Gate): SyncAdapter {
  return new Proxy(adapter, {
    get(target, name: keyof SyncAdapter) {
      if (name === 'subscribe' || name === 'history') {
        return async (...args: never[]) => {
          await gate.pass();
          return (target[name] as (...given: never[]) => unknown).apply(target, args);
        };
      }
      const member: unknown = target[name];
      return typeof member === 'function' ? (member.bind(target) as unknown) : member;
    },
  });
}

const channels = ['a', 'b', 'ephemeral:c', 'broken'];
type Step = readonly [
  kind: 'subscribe' | 'resume' | 'several' | 'unsubscribe' | 'flip' | 'release' | 'publish',
  pick: number,
];
const step: fc.Arbitrary<Step> = fc.tuple(
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom('subscribe' as const, 'resume' as const, 'several' as const) },
    { weight: 6, arbitrary: fc.constant('release' as const) },
    { weight: 2, arbitrary: fc.constantFrom('flip' as const, 'publish' as const, 'unsubscribe' as const) },
  ),
  fc.nat(7),
);

test('nothing published after a right has ended is heard, however it came to end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 80, size: 'max' }), async (steps) => {
      const gate = new Gate();
      const access = new LateAccess(gate);
      const clock = new HandClock();
      const { hub, sessions, subscribing, connect } = createHub({
        clock,
        adapter: lateAdapter(memoryAdapter(clock), gate),
        wholeAccess: access,
      });
      const people = [connect(), connect()];
      const renewals: { done: boolean; readonly denied: readonly string[] }[] = [];
      let number = 0;
      /** Numbers that nobody may hear: published when all renewals had ended, to a channel that is denied. */
      const secret = new Set<number>();
      // Something to recover, from a position that is known.
      const anchor = connect();
      void anchor.send({ type: 'subscribe', channel: 'a' });
      while (gate.release(0)) await idle();
      const epoch = anchor.outlet.states()[0]?.epoch ?? '';
      anchor.outlet.cut();
      for (const channel of [...channels, ...channels]) {
        await hub.publish({ channel, data: String(++number), source: 'server' });
      }
      const act = async ([kind, pick]: Step): Promise<void> => {
        const channel = channels[pick % channels.length]!;
        const person = people[pick % 2]!;
        if (kind === 'release') gate.release(pick);
        else if (kind === 'subscribe') void person.send({ type: 'subscribe', channel });
        else if (kind === 'resume') {
          void person.send({ type: 'subscribe', channel, since: { epoch, offset: 0 } });
        } else if (kind === 'several') {
          const other = channels[(pick + 1) % channels.length]!;
          const requests = [{ channel, resume: () => ({ epoch, offset: 0 }) }, { channel: other }];
          const attempt = async (): Promise<void> => subscribing.subscribe(person.session, requests);
          attempt().catch((error: unknown) => expect(error).toBeInstanceOf(RealtimeError));
        } else if (kind === 'unsubscribe') void person.send({ type: 'unsubscribe', channel });
        else if (kind === 'publish') {
          if (access.denied.has(channel) && renewals.every(({ done }) => done)) secret.add(++number);
          else number++;
          await hub.publish({ channel, data: String(number), source: 'server' });
        } else {
          if (!access.denied.delete(channel)) access.denied.add(channel);
          const renewal = { done: false, denied: [...access.denied] };
          renewals.push(renewal);
          void sessions.reauthorize(undefined).then(() => (renewal.done = true));
        }
        await idle();
      };
      for (const each of steps) await act(each);
      // Two that wait for each other's channels must not go on for ever.
      for (let turns = 0; gate.release(0); turns++) {
        if (turns > 5_000) throw new Error('it does not come to rest');
        await idle();
      }
      expect(renewals.every(({ done }) => done)).toBe(true);
      // Where nobody could be asked the check is repeated for some seconds; then the connection ends.
      for (let waited = 0; waited < 60; waited++) {
        clock.advance(500);
        while (gate.release(0)) await idle();
        await idle();
      }
      for (const { session } of people.filter(({ session: { closed } }) => !closed)) {
        expect(session.subscriptions.filter(({ phase }) => phase === 'suspended')).toEqual([]);
      }
      for (const [index] of channels.entries()) await act(['publish', index]);
      for (const { outlet, session } of people) {
        const heard = outlet.told.flatMap((told) => (told.kind === 'message' ? [Number(told.publication.data)] : []));
        // A right that came back brings what was kept meanwhile: only what is denied now must not have come.
        const denied = session.subscriptions.filter(({ channel }) => access.denied.has(channel));
        expect(denied.map(({ channel }) => channel)).toEqual([]);
        for (const channel of outlet.joined) expect(access.denied.has(channel)).toBe(false);
        const last = heard.filter((each) => each > number - channels.length && secret.has(each));
        expect(last).toEqual([]);
      }
    }),
    { numRuns: process.env['LONG'] === '1' ? 5_000 : 400 },
  );
}, 60_000);
