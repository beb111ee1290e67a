// What presence relies on in every store, as tests that run over each of them: their names are the sentences of
// `src/presence/store.ts`. A store's own file says how its nodes are made, and nothing else.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createMember } from '../../src/presence/member.ts';
import type { Applied, Change, PresenceEvents, PresenceStore, Told } from '../../src/presence/store.ts';
import type { Member } from '../../src/protocol/frames.ts';

export interface PresenceHarness {
  /** The store as a further node has it, started. */
  createNode(events: PresenceEvents): Promise<PresenceStore>;
  /** The store loses everything, as in a crash that keeps nothing. Resolves when it answers again. */
  lose(): Promise<void>;
  /** The store loses the signs of life of all nodes, and nothing else. */
  forgetNodes(): Promise<void> | void;
  /** Unix milliseconds, by the clock of the store. */
  now(): number;
  /** Time passes, as the store counts it. */
  pass(milliseconds: number): Promise<void> | void;
  close(): Promise<void>;
}

interface Heard extends Told {
  readonly channel: string;
  readonly epoch: string;
}

const deadlineMs = 5_000;
let count = 0;
const fresh = (what: string): string => `${what}${Date.now().toString(36)}${process.pid}${count++}`;

class Node implements PresenceEvents {
  readonly name = fresh('node');
  readonly heard: Heard[] = [];
  interruptions = 0;
  store!: PresenceStore;
  #wake: (() => void)[] = [];

  changed(channel: string, epoch: string, told: readonly Told[]): void {
    this.heard.push(...told.map((each) => ({ ...each, channel, epoch })));
    for (const wake of this.#wake.splice(0)) wake();
  }

  interrupted(): void {
    this.interruptions++;
    for (const wake of this.#wake.splice(0)) wake();
  }

  async apply(...changes: Change[]): Promise<readonly Applied[]> {
    return this.store.apply(this.name, changes);
  }

  enter(channel: string, connection: string, user: string | null, data: unknown = null): Promise<readonly Applied[]> {
    return this.apply(entering(channel, connection, user, data));
  }

  story(channel: string): string[] {
    return this.heard.filter((each) => each.channel === channel).map(shortly);
  }

  async until(channel: string, changes: number): Promise<string[]> {
    const deadline = performance.now() + deadlineMs;
    while (this.story(channel).length < changes) await this.#next(deadline, () => this.story(channel).join(', '));
    return this.story(channel);
  }

  async untilInterrupted(): Promise<void> {
    const deadline = performance.now() + 4 * deadlineMs;
    while (this.interruptions === 0) await this.#next(deadline, () => 'no interruption');
  }

  async #next(deadline: number, what: () => string): Promise<void> {
    const left = deadline - performance.now();
    if (left <= 0) throw new Error(`not in time; there is: ${what()}`);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, left);
      this.#wake.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

function entering(channel: string, connection: string, user: string | null, data: unknown = null, max = 0): Change {
  return {
    kind: 'enter',
    channel,
    connection,
    member: createMember(connection, user, JSON.stringify(data)),
    membersMax: max,
  };
}

function shortly({ kind, version, connection, left }: Told): string {
  return `${version} ${kind} ${connection}${left === undefined ? '' : ` -${left}`}`;
}

function told(applied: readonly Applied[]): (string | undefined)[] {
  return applied.map((each) => each.told && shortly(each.told));
}

async function answered<Value>(ask: () => Promise<Value>): Promise<Value> {
  for (const deadline = performance.now() + 4 * deadlineMs; ;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function memberOf(text: string): Member {
  return JSON.parse(text) as Member;
}

export function presenceContract(name: string, open: () => Promise<PresenceHarness>): void {
  describe(`presence contract: ${name}`, () => {
    let harness: PresenceHarness;
    let here: Node;
    let there: Node;
    beforeAll(async () => {
      harness = await open();
      here = await createNode();
      there = await createNode();
    }, 60_000);
    afterAll(async () => {
      await harness.close();
    }, 60_000);

    async function createNode(): Promise<Node> {
      const node = new Node();
      node.store = await harness.createNode(node);
      await node.store.live(node.name, 60_000);
      return node;
    }

    async function watched(): Promise<string> {
      const channel = fresh('room:');
      await Promise.all([here, there].map(({ store }) => store.watch(channel)));
      return channel;
    }

    async function connections(channel: string): Promise<string[]> {
      const { members } = await here.store.read(channel);
      return members.map(({ connection }) => connection).toSorted();
    }

    test('a change, its version and what is told of it are one step, and every node that watches is told', async () => {
      const channel = await watched();
      const [first] = await here.enter(channel, 'c1', 'ann', { x: 1 });
      const [second] = await there.enter(channel, 'c2', 'bob');
      expect([first, second]).toMatchObject([{ version: 1 }, { version: 2, epoch: first?.epoch }]);
      for (const node of [here, there]) {
        expect(await node.until(channel, 2)).toEqual(['1 join c1', '2 join c2']);
        const [heard] = node.heard.filter((each) => each.channel === channel);
        expect(heard?.epoch).toBe(first?.epoch ?? 'none');
        const member = memberOf(heard?.member ?? '');
        expect(member).toEqual({ user: 'ann', connection: 'c1', data: { x: 1 }, since: expect.any(Number) as number });
        expect(Object.keys(member)).toEqual(['user', 'connection', 'data', 'since']);
      }
      const list = await there.store.read(channel);
      expect(list).toMatchObject({ epoch: first?.epoch, version: 2 });
      expect(list.members.map(({ connection, node }) => `${connection} ${node}`).toSorted()).toEqual([
        `c1 ${here.name}`,
        `c2 ${there.name}`,
      ]);
      expect(await there.store.positions([channel, fresh('none:')])).toEqual([
        { epoch: first?.epoch ?? '', version: 2 },
        { epoch: '', version: 0 },
      ]);
    });

    test('the first connection of a user joins, the last one leaves, everything between is an update', async () => {
      const channel = await watched();
      await here.enter(channel, 'c1', 'ann', 1);
      await there.enter(channel, 'c2', 'ann', 2);
      await here.enter(channel, 'c3', 'ann', 3);
      await here.apply({ kind: 'leave', channel, connection: 'c1' });
      await here.apply({ kind: 'leave', channel, connection: 'c3' });
      await there.apply({ kind: 'leave', channel, connection: 'c2' });
      expect(await there.until(channel, 6)).toEqual([
        '1 join c1',
        '2 update c2',
        '3 update c3',
        '4 update c2 -c1',
        '5 update c2 -c3',
        '6 leave c2',
      ]);
      const heard = there.heard.filter((each) => each.channel === channel);
      expect(heard.map(({ member }) => memberOf(member).data)).toEqual([1, 2, 3, 2, 2, 2]);
      expect(await connections(channel)).toEqual([]);
    });

    test('a connection without a user is alone', async () => {
      const channel = await watched();
      const entered = await here.apply(entering(channel, 'c1', null), entering(channel, 'c2', null));
      const left = await here.apply(
        { kind: 'part', channel, connection: 'c1' },
        { kind: 'leave', channel, connection: 'c1' },
      );
      expect([...told(entered), ...told(left)]).toEqual(['1 join c1', '2 join c2', undefined, '3 leave c1']);
    });

    test('applying a wish twice is applying it once, and what changes nothing is not told', async () => {
      const channel = await watched();
      const enter = entering(channel, 'c1', 'ann', { x: 1 });
      const leave: Change = { kind: 'leave', channel, connection: 'c1' };
      expect(told(await here.apply(enter, enter))).toEqual(['1 join c1', undefined]);
      expect(told(await here.apply(enter))).toEqual([undefined]);
      expect(told(await here.apply(entering(channel, 'c1', 'ann', { x: 2 })))).toEqual(['2 update c1']);
      expect(told(await here.apply(leave, leave))).toEqual(['3 leave c1', undefined]);
      expect(told(await here.apply(leave, { ...leave, kind: 'part' }))).toEqual([undefined, undefined]);
      await here.enter(channel, 'c9', 'zed');
      // An empty channel may be forgotten at once, and then counts from 1 again.
      const story = await there.until(channel, 4);
      expect(story.slice(0, 3)).toEqual(['1 join c1', '2 update c1', '3 leave c1']);
      expect(story[3]).toMatch(/^[14] join c9$/);
    });

    test('data, users and times are carried as they are', async () => {
      const channel = await watched();
      const before = harness.now();
      const users = [
        'ann',
        'Ünï "quoted" \\ back',
        'a b:c',
        '__proto__',
        '{}',
        "'; drop",
        'x'.repeat(128),
        '世界 \u{10ffff}',
      ];
      const data: unknown[] = [
        null,
        { ['__proto__']: { x: 1 }, constructor: null },
        { text: 'line\nbreak \t \u2028 "quotes" \\ \u0000 \ud800' },
        ['x'.repeat(4_000)],
        'Grüße, 世界 👩‍👩‍👧',
        -0.5,
        {},
        '"since":5}',
      ];
      const entered = users.map((user, index) => entering(channel, `c${index}`, user, data[index]));
      await here.apply(...entered);
      await there.until(channel, users.length);
      const { members } = await there.store.read(channel);
      const heard = there.heard.filter((each) => each.channel === channel);
      for (const texts of [members, heard]) {
        const byConnection = new Map(texts.map(({ connection, member }) => [connection, memberOf(member)]));
        users.forEach((user, index) => {
          const member = byConnection.get(`c${index}`);
          expect(member).toMatchObject({ user, connection: `c${index}` });
          expect(JSON.stringify(member?.data)).toBe(JSON.stringify(data[index]));
          expect(Math.abs((member?.since ?? 0) - before)).toBeLessThan(60_000);
        });
      }
      // Found again by its user, whatever that is called.
      for (const [index, user] of users.entries()) {
        expect(told(await there.enter(channel, `d${index}`, user))).toEqual([
          expect.stringContaining(`update d${index}`),
        ]);
      }
    });

    test('one that parts stays a member, and the next connection of the user takes its place and its time', async () => {
      const channel = await watched();
      await here.enter(channel, 'c1', 'ann', 'old');
      const [{ member } = { member: '' }] = (await here.store.read(channel)).members;
      await here.apply({ kind: 'part', channel, connection: 'c1' });
      expect(await connections(channel)).toEqual(['c1']);
      await harness.pass(5);
      expect(told(await there.enter(channel, 'c2', 'ann', 'new'))).toEqual(['2 update c2 -c1']);
      expect(told(await here.apply({ kind: 'leave', channel, connection: 'c1' }))).toEqual([undefined]);
      const { members } = await here.store.read(channel);
      expect(members.map((each) => [each.connection, each.node])).toEqual([['c2', there.name]]);
      expect(memberOf(members[0]?.member ?? '')).toMatchObject({ data: 'new', since: memberOf(member).since });
      expect(told(await there.apply({ kind: 'leave', channel, connection: 'c2' }))).toEqual(['3 leave c2']);
    });

    test('one that parts and comes back itself is as it was', async () => {
      const channel = await watched();
      await here.enter(channel, 'c1', 'ann');
      await here.apply({ kind: 'part', channel, connection: 'c1' });
      expect(told(await here.enter(channel, 'c1', 'ann'))).toEqual([undefined]);
      expect(told(await there.enter(channel, 'c2', 'ann'))).toEqual(['2 update c2']);
    });

    test('of two that part, two that come take the places, and the third is one more', async () => {
      const channel = await watched();
      await here.apply(entering(channel, 'c1', 'ann'), entering(channel, 'c2', 'ann'));
      await here.apply({ kind: 'part', channel, connection: 'c1' }, { kind: 'part', channel, connection: 'c2' });
      const entered = [];
      for (const connection of ['d1', 'd2', 'd3']) entered.push(...told(await there.enter(channel, connection, 'ann')));
      expect(entered).toEqual(['3 update d1 -c1', '4 update d2 -c2', '5 update d3']);
      expect(await connections(channel)).toEqual(['d1', 'd2', 'd3']);
    });

    test('where the channel has as many members as it takes, one more is refused, and one in another’s place is not', async () => {
      const channel = await watched();
      await here.apply(entering(channel, 'c1', 'ann', null, 2), entering(channel, 'c2', 'bob', null, 2));
      const [full] = await there.apply(entering(channel, 'c3', 'cyd', null, 2));
      expect([full?.isFull, full?.told]).toEqual([true, undefined]);
      expect(told(await there.apply(entering(channel, 'c1', 'ann', 'again', 2)))).toEqual(['3 update c1']);
      await here.apply({ kind: 'part', channel, connection: 'c2' });
      expect(told(await there.apply(entering(channel, 'c4', 'bob', null, 2)))).toEqual(['4 update c4 -c2']);
      expect(told(await there.apply(entering(channel, 'c3', 'cyd', null, 0)))).toEqual(['5 join c3']);
    });

    test('a channel’s room is what is left of it, however members came and went', async () => {
      const channel = await watched();
      const dead = await createNode();
      await dead.apply(
        ...['x1', 'x2', 'x3'].map((connection) => entering(channel, connection, `user of ${connection}`)),
      );
      await here.apply(entering(channel, 'c1', 'ann'), entering(channel, 'c2', 'ann'), entering(channel, 'c3', null));
      await here.apply(entering(channel, 'c1', 'ann', 'other data'), entering(channel, 'c2', 'ann'));
      await here.apply({ kind: 'part', channel, connection: 'c2' });
      await there.apply(entering(channel, 'd2', 'ann'), entering(channel, 'd3', 'dan'));
      await here.apply(...['c2', 'c3', 'c9'].map((connection) => ({ kind: 'leave', channel, connection }) as const));
      await dead.store.end(dead.name, 0);
      await harness.pass(10);
      while (!(await here.store.bury(dead.name)).isDone);
      expect(await connections(channel)).toEqual(['c1', 'd2', 'd3']);
      const entered = await there.apply(
        entering(channel, 'e1', 'eve', null, 4),
        entering(channel, 'e2', 'fay', null, 4),
      );
      expect(entered.map(({ isFull }) => isFull)).toEqual([false, true]);
    });

    test('changes of many channels are applied in order for each, and answered in the order asked', async () => {
      const channels = [await watched(), await watched(), await watched()];
      const changes = Array.from({ length: 60 }, (_, index) => {
        const channel = channels[index % 3] ?? '';
        const connection = `c${index % 12}`;
        return index % 4 === 3
          ? ({ kind: 'leave', channel, connection } as const)
          : entering(channel, connection, `u${index % 6}`, index);
      });
      const answers = await here.apply(...changes);
      expect(answers).toHaveLength(changes.length);
      answers.forEach((answer, index) => {
        const { connection } = changes[index] ?? { connection: '' };
        const named = [answer.told?.connection, answer.told?.left];
        if (answer.told !== undefined) expect(named).toContain(connection);
      });
      for (const channel of channels) {
        const expected = answers.flatMap((answer, index) =>
          changes[index]?.channel === channel && answer.told ? [shortly(answer.told)] : [],
        );
        expect(await there.until(channel, expected.length)).toEqual(expected);
        expect(expected.map((each) => Number.parseInt(each, 10))).toEqual(expected.map((_, index) => index + 1));
      }
    });

    test('it answers where as many lists stand as it says, in the order asked', async () => {
      const channels = Array.from({ length: here.store.positionsMax }, () => fresh('room:'));
      const entered = channels.filter((_, index) => index % 7 === 3).slice(0, 12);
      const changes = [...entered, ...entered.slice(0, 5)].map((channel, at) => entering(channel, `c${at}`, null));
      const answers = await here.apply(...changes);
      const last = new Map(changes.map(({ channel }, at) => [channel, answers[at]]));
      expect(await there.store.positions(channels)).toEqual(
        channels.map((channel) => {
          const { epoch = '', version = 0 } = last.get(channel) ?? {};
          return { epoch, version };
        }),
      );
      expect(entered.length).toBeGreaterThan(2);
      expect(new Set(answers.map(({ epoch }) => epoch)).size).toBe(entered.length);
    });

    test('nodes that change one channel at once number their changes without a hole', async () => {
      const channel = await watched();
      const each = Array.from({ length: 20 }, (_, index) => index);
      await Promise.all([
        (async () => {
          for (const index of each) await here.enter(channel, `a${index}`, `u${index % 7}`);
        })(),
        (async () => {
          for (const index of each) await there.enter(channel, `b${index}`, `u${index % 7}`);
        })(),
      ]);
      const stories = [await here.until(channel, 40), await there.until(channel, 40)];
      expect(stories[0]).toEqual(stories[1] ?? []);
      expect(stories[0]?.map((text) => Number.parseInt(text, 10))).toEqual(
        Array.from({ length: 40 }, (_, index) => index + 1),
      );
      expect(stories[0]?.filter((text) => text.includes('join'))).toHaveLength(7);
    });

    test('a list of many members is whole, while others come and go', async () => {
      const channel = await watched();
      const many = Array.from({ length: 3_000 }, (_, index) => entering(channel, `m${index}`, `u${index}`));
      for (let at = 0; at < many.length; at += 200) await here.apply(...many.slice(at, at + 200));
      const reading = there.store.read(channel);
      await here.apply({ kind: 'leave', channel, connection: 'm5' }, entering(channel, 'n1', 'new'));
      const snapshot = await reading;
      const listed = new Set(snapshot.members.map(({ connection }) => connection));
      await there.until(channel, 3_002);
      for (const { version, kind, connection } of there.heard.filter((each) => each.channel === channel)) {
        if (version <= snapshot.version) continue;
        if (kind === 'leave') listed.delete(connection);
        else listed.add(connection);
      }
      expect(listed.size).toBe(3_000);
      expect(listed.has('m5')).toBe(false);
      expect(listed.has('n1')).toBe(true);
    }, 30_000);

    test('a channel that is not watched tells nothing', async () => {
      const channel = fresh('room:');
      const other = await watched();
      await there.store.watch(channel);
      there.store.unwatch(channel);
      await here.enter(channel, 'c1', 'ann');
      await here.enter(other, 'c2', 'ann');
      await there.until(other, 1);
      expect(there.story(channel).length + here.story(channel).length).toBeLessThanOrEqual(1);
      expect(here.story(channel)).toEqual([]);
    });

    test('a node is known from its first sign of life on, and dead when one is late', async () => {
      const name = fresh('short');
      expect(await here.store.live(name, 1_000)).toMatchObject({ isKnown: false });
      expect(await here.store.live(name, 1_000)).toMatchObject({ isKnown: true });
      const soon = await there.store.live(there.name, 60_000);
      expect(soon.dead).not.toContain(name);
      expect(soon.nextDeathMs).toBeWithin(1, 1_001);
      await harness.pass(1_100);
      expect((await there.store.live(there.name, 60_000)).dead).toContain(name);
      // Late, and not given up by anyone yet.
      expect(await here.store.live(name, 60_000)).toMatchObject({ isKnown: true });
      expect((await there.store.live(there.name, 60_000)).dead).not.toContain(name);
      await here.store.end(name, 0);
      await harness.pass(10);
      expect((await there.store.live(there.name, 60_000)).dead).toContain(name);
      expect((await there.store.bury(name)).isDone).toBe(true);
      expect(await here.store.live(name, 1_000)).toMatchObject({ isKnown: false });
      await here.store.end(name, 0);
      await harness.pass(10);
      await here.store.bury(name);
    });

    test('each member of a dead node is removed by one call, and one that entered by another node is not', async () => {
      const [one, two] = [await watched(), await watched()];
      const dead = await createNode();
      const members = Array.from({ length: 450 }, (_, index) => entering(one, `x${index}`, `u${index}`));
      await dead.apply(...members, entering(two, 'y1', 'ann'), entering(two, 'y2', 'bob'), entering(two, 'y3', null));
      await here.apply(entering(two, 'z1', 'ann'));
      // The connection itself, by another name of its node.
      await there.apply(entering(two, 'y2', 'bob'));
      await dead.store.end(dead.name, 0);
      await harness.pass(10);
      const removed: string[] = [];
      await Promise.all(
        [here, there].map(async ({ store }) => {
          for (let isDone = false; !isDone;) {
            const buried = await store.bury(dead.name);
            isDone = buried.isDone;
            removed.push(
              ...buried.told.map(
                (each) => `${each.channel} ${each.told.kind} ${each.told.left ?? each.told.connection}`,
              ),
            );
          }
        }),
      );
      expect(removed).toHaveLength(452);
      expect(new Set(removed).size).toBe(452);
      expect(removed).toContain(`${two} update y1`);
      expect(removed).toContain(`${two} leave y3`);
      expect(await connections(one)).toEqual([]);
      expect(await connections(two)).toEqual(['y2', 'z1']);
      await here.until(one, 900);
      expect(here.story(one).filter((text) => text.includes('leave'))).toHaveLength(450);
      expect(await here.store.live(dead.name, 1)).toMatchObject({ isKnown: false });
    }, 30_000);

    test('a node that the store does not know is buried, once its members were seen', async () => {
      const channel = await watched();
      const lost = await createNode();
      await lost.enter(channel, 'c1', 'ann');
      // As where the nodes are kept apart from the members, and were lost alone.
      await harness.forgetNodes();
      await here.store.suspect(channel, [lost.name, there.name], 1_000);
      expect(await there.store.live(there.name, 60_000)).toMatchObject({ isKnown: true });
      expect((await here.store.live(here.name, 60_000)).dead).not.toContain(lost.name);
      await harness.pass(1_100);
      expect((await here.store.live(here.name, 60_000)).dead).toContain(lost.name);
      expect((await here.store.bury(lost.name)).told.map((each) => shortly(each.told))).toEqual(['2 leave c1']);
      expect(await connections(channel)).toEqual([]);
    });

    test('after the store has lost its memory the epoch is another, nodes are told, and are not known any more', async () => {
      const channel = await watched();
      const [before] = await here.enter(channel, 'c1', 'ann');
      await Promise.all([here, there].map((node) => node.until(channel, 1)));
      here.interruptions = there.interruptions = 0;
      await harness.lose();
      await Promise.all([here, there].map((node) => node.untilInterrupted()));
      // Its connections come back one after the other.
      expect(await answered(() => here.store.live(here.name, 60_000))).toMatchObject({ isKnown: false });
      expect(await here.store.read(channel)).toEqual({ epoch: '', version: 0, members: [] });
      await here.store.watch(channel);
      const [after] = await here.enter(channel, 'c1', 'ann');
      expect(after).toMatchObject({ version: 1, told: { kind: 'join' } });
      expect(after?.epoch).not.toBe(before?.epoch ?? '');
      await here.until(channel, 2);
    }, 60_000);
  });
}
