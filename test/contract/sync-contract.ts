// What the hub relies on in every sync adapter, as tests that run over each of them: their names are the sentences of
// `src/core/sync-adapter.ts`. An adapter's own file says how its nodes are made, and nothing else.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { Publication } from '../../src/core/publication.ts';
import type { RuleConfig } from '../../src/rules/config.ts';
import { Rules, type ChannelRule } from '../../src/rules/rules.ts';
import type {
  Appended,
  HistoryPage,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncTraits,
} from '../../src/core/sync-adapter.ts';
import type { Position } from '../../src/protocol/position.ts';

/** One sync layer and the nodes on it. */
export interface SyncHarness {
  /** A further node, started. Called more than once only where the traits say `shared`. */
  createNode(events: SyncEvents): Promise<SyncAdapter>;
  /** All nodes end as if their processes had been killed; the next `createNode` starts anew on what is left. */
  restart(): Promise<void>;
  /** The time by which publications age. */
  readonly clock: { now(): number; advance(milliseconds: number): Promise<void> | void };
  close(): Promise<void>;
}

export interface SyncUnderTest {
  readonly traits: SyncTraits;
  open(): Promise<SyncHarness>;
}

const ageSeconds = 60;

/** The rules that the harness gives to whatever trims the log. */
export const contractRules: readonly RuleConfig[] = [
  { channels: 'ephemeral:*', recoverable: false },
  { channels: 'size:*', history: { size: 3 } },
  { channels: 'age:*', history: { seconds: ageSeconds } },
  { channels: '*' },
];

const rules = new Rules({ rules: contractRules });
const deadlineMs = 5_000;

/** Hears what an adapter tells, and wakes whoever waits for it. */
class Listener implements SyncEvents {
  readonly told: Publication[] = [];
  readonly heads: { readonly channel: string; readonly head: Position }[] = [];
  #wake: (() => void)[] = [];

  publication(publication: Publication): void {
    this.told.push(publication);
    for (const wake of this.#wake.splice(0)) wake();
  }

  head(channel: string, head: Position): void {
    this.heads.push({ channel, head });
  }

  settled(): void {
    // Nobody reads here, so nobody has to be waited for.
  }

  /** Of one channel, each once: an adapter may repeat itself, but a first telling never comes after a later one. */
  of(channel: string): Publication[] {
    const seen = new Set<number>();
    return this.told.filter((publication) => {
      if (publication.channel !== channel || seen.has(publication.offset)) return false;
      if (publication.offset > 0) seen.add(publication.offset);
      return true;
    });
  }

  offsets(channel: string): number[] {
    return this.of(channel).map(({ offset }) => offset);
  }

  until(channel: string, count: number): Promise<Publication[]> {
    return this.#wait(channel, () => this.of(channel).length >= count);
  }

  untilOffset(channel: string, offset: number): Promise<Publication[]> {
    return this.#wait(channel, () => (this.of(channel).at(-1)?.offset ?? 0) >= offset);
  }

  async #wait(channel: string, done: () => boolean): Promise<Publication[]> {
    const deadline = performance.now() + deadlineMs;
    while (!done()) {
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`${channel}: heard only ${this.of(channel).length} in time`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    return this.of(channel);
  }
}

interface Node {
  readonly adapter: SyncAdapter;
  readonly heard: Listener;
}

const sender = { user: 'ann', connection: 'c1' };
let channelCount = 0;

/** A channel that no other test and no other run uses. */
function fresh(namespace = 'contract'): { channel: string; rule: ChannelRule } {
  const channel = `${namespace}:${Date.now().toString(36)}-${process.pid}-${channelCount++}`;
  return { channel, rule: rules.for(channel) };
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index);
}

export function syncContract(name: string, { traits, open }: SyncUnderTest): void {
  describe(`sync contract: ${name}`, () => {
    let harness: SyncHarness;
    let node: Node;
    beforeAll(async () => {
      harness = await open();
      node = await createNode();
    }, 60_000);
    afterAll(async () => {
      await harness.close();
    }, 60_000);

    async function createNode(): Promise<Node> {
      const heard = new Listener();
      return { heard, adapter: await harness.createNode(heard) };
    }

    async function send(
      channel: string,
      data: string,
      more: Partial<Outgoing> = {},
      by: Node = node,
    ): Promise<Appended | undefined> {
      const rule = rules.for(channel);
      return await by.adapter.publish({ channel, rule, data, at: harness.clock.now(), ...more });
    }

    async function sendMany(channel: string, count: number): Promise<Position[]> {
      const positions: Position[] = [];
      for (let sent = 0; sent < count; sent++) {
        const position = await send(channel, String(sent));
        if (position !== undefined) positions.push(position);
      }
      return positions;
    }

    async function history(channel: string, limit: number, since?: Position): Promise<HistoryPage> {
      return await node.adapter.history(channel, rules.for(channel), { limit, since });
    }

    function offsetsOf(page: HistoryPage): number[] {
      return page.publications.map(({ offset }) => offset);
    }

    const overNodes = test.skipIf(!traits.shared);
    const alone = traits.shared ? '' : ' (one process only: no other node)';

    describe('publish', () => {
      test('offset is 1 for a channel’s first publication and +1 for each next', async () => {
        const { channel } = fresh();
        const positions = await sendMany(channel, 5);
        expect(positions.map(({ offset }) => offset)).toEqual([1, 2, 3, 4, 5]);
      });

      test('the epoch names the log, the same in every answer about the channel', async () => {
        const { channel, rule } = fresh();
        const before = await node.adapter.subscribe(channel, rule);
        const [first, second] = await sendMany(channel, 2);
        const heard = await node.heard.until(channel, 2);
        const page = await history(channel, 10);
        const epochs = [first, second, ...heard, ...page.publications, page.head].map((each) => each?.epoch);
        expect(new Set(epochs)).toEqual(new Set([first?.epoch ?? 'none']));
        expect(before?.offset).toBe(0);
        expect(first?.epoch.length).toBeWithin(1, 65);
      });

      test('two channels are counted apart', async () => {
        const [one, two] = [fresh().channel, fresh().channel];
        await sendMany(one, 3);
        expect(await sendMany(two, 1)).toMatchObject([{ offset: 1 }]);
        expect(offsetsOf(await history(one, 10))).toEqual([1, 2, 3]);
        expect(offsetsOf(await history(two, 10))).toEqual([1]);
      });

      test('for a repeated key it answers the position it had before, says so, and publishes nothing', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        const first = await send(channel, '1', { key: 'k' });
        await send(channel, '2', { key: 'other' });
        expect(first?.isRepeat).toBeUndefined();
        expect(await send(channel, '3', { key: 'k' })).toEqual({ epoch: '', offset: 0, ...first, isRepeat: true });
        await send(channel, '4');
        expect((await node.heard.until(channel, 3)).map(({ data }) => data)).toEqual(['1', '2', '4']);
        expect(offsetsOf(await history(channel, 10))).toEqual([1, 2, 3]);
      });

      test('a key that is used many times at once is used once', async () => {
        const { channel } = fresh();
        const positions = await Promise.all(range(1, 20).map((each) => send(channel, String(each), { key: 'k' })));
        expect(new Set(positions.map((position) => position?.offset))).toEqual(new Set([1]));
        expect((await history(channel, 10)).head.offset).toBe(1);
      });

      test('keys of two channels, and keys that look like names of the language, are apart', async () => {
        const [one, two] = [fresh().channel, fresh().channel];
        for (const key of ['k', '__proto__', 'constructor', 'toString', 'ключ', ' ', 'x'.repeat(64)]) {
          expect((await send(one, '1', { key }))?.offset).toBe((await send(two, '1', { key }))?.offset ?? -1);
        }
        expect((await history(one, 1)).head.offset).toBe(7);
      });

      test('within the channel’s kept history a second use of a key changes nothing; after it, it is new', async () => {
        const { channel } = fresh('size');
        await send(channel, '1', { key: 'k' });
        await sendMany(channel, 2);
        expect(await send(channel, '4', { key: 'k' })).toMatchObject({ offset: 1 });
        await sendMany(channel, 1);
        expect(await send(channel, '5', { key: 'k' })).toMatchObject({ offset: 5 });
      });

      test('publishers at once get one offset each, and all are heard in ascending offset', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        const positions = await Promise.all(range(1, 100).map((each) => send(channel, String(each))));
        const offsets = positions.map((position) => position?.offset ?? -1).sort((a, b) => a - b);
        expect(offsets).toEqual(range(1, 100));
        await node.heard.until(channel, 100);
        expect(node.heard.offsets(channel)).toEqual(range(1, 100));
      });

      test('data is carried as the text that it came in', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        const texts = [
          '1e400',
          '-0.0',
          '123456789012345678901234567890',
          '{"a":1,"a":2}',
          '{ "spaced" : [ 1 , 2 ] }',
          '"\\u0000\\ud800 \\/ \\u00e9"',
          JSON.stringify('Grüße, 世界 👩‍👩‍👧 \u2028\u2029 \u{10ffff}'),
          '{"__proto__":{"x":1},"constructor":null}',
          '""',
          'null',
          '"\'; drop table x; --$1 {} %s \\\\n"',
        ];
        for (const text of texts) await send(channel, text);
        expect((await node.heard.until(channel, texts.length)).map(({ data }) => data)).toEqual(texts);
        expect((await history(channel, 100)).publications.map(({ data }) => data)).toEqual(texts);
      });

      test('empty data is a gap of the log: it takes an offset, is told and kept as it is', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        for (const data of ['1', '', '3']) await send(channel, data);
        const heard = await node.heard.until(channel, 3);
        expect(heard.map(({ data, isGap }) => [data, isGap])).toEqual([
          ['1', false],
          ['', true],
          ['3', false],
        ]);
        const { publications, head } = await history(channel, 10);
        expect(publications.map(({ offset, data }) => [offset, data])).toEqual([
          [1, '1'],
          [2, ''],
          [3, '3'],
        ]);
        expect(head.offset).toBe(3);
      });

      test('data may be 64 KiB', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        const text = JSON.stringify('é'.repeat(32_767));
        expect(new TextEncoder().encode(text)).toHaveLength(65_536);
        await send(channel, text);
        const [heard] = await node.heard.until(channel, 1);
        expect(heard?.data === text).toBe(true);
        expect((await history(channel, 1)).publications[0]?.data === text).toBe(true);
      });

      test('a publication carries who published it, when, and which connection shall not hear it', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        const at = harness.clock.now();
        await send(channel, '1', { from: sender, except: 'c1' });
        await send(channel, '2', { from: { user: null, connection: 'c2' } });
        await send(channel, '3');
        for (const publications of [await node.heard.until(channel, 3), (await history(channel, 3)).publications]) {
          expect(publications.map(({ from }) => from)).toEqual([sender, { user: null, connection: 'c2' }, undefined]);
          expect(publications.map(({ except }) => except)).toEqual(['c1', undefined, undefined]);
          for (const publication of publications) expect(Math.abs(publication.at - at)).toBeLessThan(60_000);
        }
      });
    });

    describe('ephemeral', () => {
      test('undefined is answered, and nothing is brought back to the node that sent it or kept', async () => {
        const { channel, rule } = fresh('ephemeral');
        expect(await node.adapter.subscribe(channel, rule)).toBeUndefined();
        expect(await send(channel, '1')).toBeUndefined();
        const later = fresh();
        await node.adapter.subscribe(later.channel, later.rule);
        await send(later.channel, '2');
        await node.heard.until(later.channel, 1);
        expect(node.heard.of(channel)).toEqual([]);
      });

      overNodes(`every other node hears it, without a number${alone}`, async () => {
        const { channel, rule } = fresh('ephemeral');
        const other = await createNode();
        await other.adapter.subscribe(channel, rule);
        const at = harness.clock.now();
        await send(channel, '1e400', { at, from: sender, except: 'c1' });
        const [heard] = await other.heard.until(channel, 1);
        expect(heard).toMatchObject({ offset: 0, epoch: '', data: '1e400', at, from: sender, except: 'c1' });
        await other.adapter.close();
      });
    });

    describe('subscribe', () => {
      test('every publication with a higher offset than the head that it answers will be told', async () => {
        for (let round = 0; round < 5; round++) {
          const { channel, rule } = fresh();
          const sending = range(1, 30).map((each) => send(channel, String(each)));
          const head = await node.adapter.subscribe(channel, rule);
          await Promise.all(sending);
          await sendMany(channel, 5);
          const expected = range((head?.offset ?? 0) + 1, 35);
          // It may have heard some up to the head as well.
          await node.heard.untilOffset(channel, 35);
          expect(node.heard.offsets(channel).filter((offset) => offset > (head?.offset ?? 0))).toEqual(expected);
        }
      });

      test('idempotent', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        await sendMany(channel, 2);
        expect(await node.adapter.subscribe(channel, rule)).toMatchObject({ offset: 2 });
        await sendMany(channel, 1);
        await node.heard.until(channel, 3);
        expect(node.heard.offsets(channel)).toEqual([1, 2, 3]);
      });

      test('unsubscribe is idempotent, and subscribing again answers the head', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        await sendMany(channel, 1);
        node.adapter.unsubscribe(channel);
        node.adapter.unsubscribe(channel);
        node.adapter.unsubscribe(fresh().channel);
        await sendMany(channel, 2);
        expect(await node.adapter.subscribe(channel, rule)).toMatchObject({ offset: 3 });
        await sendMany(channel, 1);
        const deadline = performance.now() + deadlineMs;
        for (let count = 1; !node.heard.offsets(channel).includes(4); count++) {
          if (performance.now() > deadline) throw new Error('the publication after subscribing again was not told');
          await node.heard.until(channel, count);
        }
      });

      overNodes(`every node hears every publication, whichever node accepted it${alone}`, async () => {
        const { channel, rule } = fresh();
        const other = await createNode();
        for (const { adapter } of [node, other]) await adapter.subscribe(channel, rule);
        const sending = range(1, 60).map((each) => send(channel, String(each), {}, each % 2 === 0 ? node : other));
        await Promise.all(sending);
        for (const { heard } of [node, other]) {
          await heard.until(channel, 60);
          expect(heard.offsets(channel)).toEqual(range(1, 60));
        }
        const data = ({ heard }: Node) => heard.of(channel).map((publication) => publication.data);
        expect(data(node)).toEqual(data(other));
        await other.adapter.close();
      });

      overNodes(`a key that was used on one node is used on all${alone}`, async () => {
        const { channel } = fresh();
        const other = await createNode();
        const both = [node, other].flatMap((each) => range(1, 5).map(() => send(channel, '1', { key: 'k' }, each)));
        expect(new Set((await Promise.all(both)).map((position) => position?.offset))).toEqual(new Set([1]));
        await other.adapter.close();
      });
    });

    describe('history', () => {
      test('of a channel that never had a publication: nothing, and that is all', async () => {
        const page = await history(fresh().channel, 10);
        expect([page.head.offset, page.publications, page.complete, page.gap]).toEqual([0, [], true, undefined]);
      });

      test('with since: the page begins right after it; complete when it ends at the head', async () => {
        const { channel } = fresh();
        const [first] = await sendMany(channel, 10);
        const epoch = first?.epoch ?? '';
        const pages = await Promise.all([0, 4, 7, 10].map((offset) => history(channel, 4, { epoch, offset })));
        expect(pages.map(offsetsOf)).toEqual([[1, 2, 3, 4], [5, 6, 7, 8], [8, 9, 10], []]);
        expect(pages.map(({ complete }) => complete)).toEqual([false, false, true, true]);
        expect(pages.map(({ gap }) => gap)).toEqual([undefined, undefined, undefined, undefined]);
        for (const { head } of pages) expect(head).toEqual({ epoch, offset: 10 });
        expect((await history(channel, 6, { epoch, offset: 4 })).complete).toBe(true);
      });

      test('without since: the newest, ascending; complete when it is all that is kept', async () => {
        const { channel } = fresh();
        await sendMany(channel, 6);
        const [some, all] = [await history(channel, 4), await history(channel, 6)];
        expect([offsetsOf(some), some.complete]).toEqual([[3, 4, 5, 6], false]);
        expect([offsetsOf(all), all.complete]).toEqual([[1, 2, 3, 4, 5, 6], true]);
      });

      test('keeps no more than the rule’s size, and says trimmed to whoever needs more', async () => {
        const { channel } = fresh('size');
        const positions = await sendMany(channel, 8);
        const epoch = positions[0]?.epoch ?? '';
        const newest = await history(channel, 10);
        expect([offsetsOf(newest), newest.complete, newest.gap]).toEqual([[6, 7, 8], true, undefined]);
        const behind = await history(channel, 10, { epoch, offset: 2 });
        expect([offsetsOf(behind), behind.gap, behind.head.offset]).toEqual([[6, 7, 8], 'trimmed', 8]);
        const edge = await history(channel, 10, { epoch, offset: 5 });
        expect([offsetsOf(edge), edge.gap, edge.complete]).toEqual([[6, 7, 8], undefined, true]);
      });

      test('keeps nothing past the rule’s age, and the count goes on', async () => {
        const { channel } = fresh('age');
        const [first] = await sendMany(channel, 2);
        await harness.clock.advance(ageSeconds * 1_000 + 1_000);
        const epoch = first?.epoch ?? '';
        const all = await history(channel, 10);
        expect([offsetsOf(all), all.head]).toEqual([[], { epoch, offset: 2 }]);
        expect((await history(channel, 10, { epoch, offset: 1 })).gap).toBe('trimmed');
        expect((await history(channel, 10, { epoch, offset: 2 })).gap).toBeUndefined();
        expect(await send(channel, '3')).toEqual({ epoch, offset: 3 });
        const behind = await history(channel, 10, { epoch, offset: 0 });
        expect([offsetsOf(behind), behind.gap]).toEqual([[3], 'trimmed']);
      });

      // What was past its age filled the first page, and all that came after it was skipped as if it were gone too.
      test('a page begins with the oldest that the rule keeps, however much is stored before it', async () => {
        const { channel } = fresh('age');
        const [first] = await sendMany(channel, 30);
        await harness.clock.advance(ageSeconds * 1_000 + 1_000);
        await sendMany(channel, 20);
        const epoch = first?.epoch ?? '';
        const page = await history(channel, 5, { epoch, offset: 3 });
        expect([offsetsOf(page), page.gap]).toEqual([range(31, 35), 'trimmed']);
        const newest = await history(channel, 25);
        expect([offsetsOf(newest), newest.complete]).toEqual([range(31, 50), true]);
        const edge = await history(channel, 3, { epoch, offset: 30 });
        expect([offsetsOf(edge), edge.gap]).toEqual([[31, 32, 33], undefined]);
      });

      // 100 reads of a thousand large publications each, 6.5 KB in all, stopped Redis for half a minute.
      test('a page holds about as many bytes as asked at most, and one publication in any case', async () => {
        const { channel, rule } = fresh();
        const text = JSON.stringify('x'.repeat(9_998));
        for (let sent = 0; sent < 40; sent++) await send(channel, text);
        const [head] = [(await history(channel, 1)).head];
        const read = (bytesMax: number, offset?: number) => {
          const since = offset === undefined ? undefined : { epoch: head.epoch, offset };
          return node.adapter.history(channel, rule, { limit: 30, since, bytesMax });
        };
        const after = await read(100_000, 5);
        expect([offsetsOf(after), after.complete, after.gap]).toEqual([range(6, 15), false, undefined]);
        const newest = await read(100_000);
        expect([offsetsOf(newest), newest.complete]).toEqual([range(31, 40), false]);
        for (const offset of [12, undefined]) {
          const one = await read(1, offset);
          expect([offsetsOf(one), one.complete]).toEqual([[offset === undefined ? 40 : 13], false]);
        }
        expect(offsetsOf(await read(1 << 20, 5))).toEqual(range(6, 35));
        const last = await read(1, 39);
        expect([offsetsOf(last), last.complete]).toEqual([[40], true]);
      });

      test('a page holds no more than a mebibyte or so unless it is asked for', async () => {
        const { channel } = fresh();
        const text = JSON.stringify('x'.repeat(65_534));
        for (let sent = 0; sent < 20; sent++) await send(channel, text);
        const page = await history(channel, 20);
        expect(page.publications.length).toBeWithin(12, 17);
        expect(page.complete).toBe(false);
      });

      test('this node’s own reads get at least what the rule keeps, without holes', async () => {
        const { channel, rule } = fresh('size');
        const [first] = await sendMany(channel, 6);
        const since = { epoch: first?.epoch ?? '', offset: 0 };
        const page = await node.adapter.history(channel, rule, { since, limit: 10 }, true);
        const offsets = offsetsOf(page);
        expect(offsets.slice(-3)).toEqual([4, 5, 6]);
        expect(offsets).toEqual(range(offsets[0] ?? 0, 6));
        expect(page.gap).toBe(offsets[0] === 1 ? undefined : 'trimmed');
      });

      test('a position of another epoch, or past the head, is epoch_changed', async () => {
        const { channel } = fresh();
        const [first] = await sendMany(channel, 3);
        const epoch = first?.epoch ?? '';
        const foreign = ['', 'no-such-epoch', 'x'.repeat(64), '\u{1f600}'].map((other) => ({
          epoch: other,
          offset: 1,
        }));
        const future = [4, 1_000, 2 ** 40, Number.MAX_SAFE_INTEGER].map((offset) => ({ epoch, offset }));
        for (const since of [...foreign, ...future]) {
          const page = await history(channel, 10, since);
          expect([page.gap, page.head]).toEqual(['epoch_changed', { epoch, offset: 3 }]);
        }
      });

      test('holds what was told, unchanged', async () => {
        const { channel, rule } = fresh();
        await node.adapter.subscribe(channel, rule);
        for (const more of [{ from: sender }, { except: 'c1' }, {}]) await send(channel, '{"a":[1,2]}', more);
        const fields = ({ offset, epoch, data, at, from, except }: Publication) => [
          offset,
          epoch,
          data,
          at,
          from,
          except,
        ];
        const heard = await node.heard.until(channel, 3);
        expect((await history(channel, 3)).publications.map(fields)).toEqual(heard.map(fields));
      });
    });

    describe('lifecycle', () => {
      test('is up, and a probe travels the real path', async () => {
        expect(node.adapter.health().up).toBe(true);
        await Promise.all([1, 2, 3].map(() => node.adapter.probe(deadlineMs)));
      });

      test(`positions ${traits.durable ? 'survive' : 'are void after'} a restart`, async () => {
        const { channel } = fresh();
        const [, second] = await sendMany(channel, 2);
        await harness.restart();
        node = await createNode();
        const page = await history(channel, 10, second);
        const third = await send(channel, '3');
        if (traits.durable) {
          expect([page.gap, page.complete]).toEqual([undefined, true]);
          expect(third).toEqual({ epoch: second?.epoch ?? '', offset: 3 });
        } else {
          expect(page.gap).toBe('epoch_changed');
          expect(third?.offset).toBe(1);
          expect(third?.epoch).not.toBe(second?.epoch ?? '');
        }
      });

      test('after close nothing is told any more; closing again is harmless', async () => {
        const { channel, rule } = fresh();
        const closed = traits.shared ? await createNode() : node;
        await closed.adapter.subscribe(channel, rule);
        await sendMany(channel, 1);
        await closed.heard.until(channel, 1);
        await closed.adapter.close();
        await closed.adapter.close();
        expect(closed.adapter.health().up).toBe(false);
        await expect(closed.adapter.probe(1_000)).rejects.toThrow();
        if (traits.shared) await sendMany(channel, 3);
        expect(closed.heard.offsets(channel)).toEqual([1]);
      });
    });
  });
}
