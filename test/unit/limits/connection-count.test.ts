// Connections per key over several nodes: how many get in, who is asked, and what is left afterwards.

import { expect, test } from 'bun:test';
import { ConnectionCount } from '../../../src/limits/connection-count.ts';
import { HandClock, idle } from '../../support/hub.ts';

/** Nodes that answer each other within a millisecond or so of a clock that is turned by hand. */
class Nodes {
  readonly clock = new HandClock();
  readonly counts: ConnectionCount[];
  readonly open: number[];
  questions = 0;
  isAway = false;
  answerMs = 0;

  constructor(nodes: number, max: number) {
    this.open = Array.from({ length: nodes }, () => 0);
    this.counts = this.open.map((_open, self) => {
      const whole = {
        nodes: () => nodes,
        connections: (key: string) => this.#gather(self, key),
      };
      return new ConnectionCount({ max, prefix: 'user:', whole, clock: this.clock });
    });
  }

  /** Whether one more came in at this node. */
  async connect(node: number, key = 'ann'): Promise<boolean> {
    const count = this.counts[node]!;
    const asking = count.ask(key);
    if (asking !== undefined) await asking;
    if (!count.hasRoom(key)) return false;
    count.joined(key);
    this.open[node]!++;
    return true;
  }

  /** As `connect`, with time passing meanwhile. */
  async connectAll(nodes: readonly number[]): Promise<number> {
    const attempts = nodes.map((node) => this.connect(node));
    let pending = true;
    const all = Promise.all(attempts).finally(() => (pending = false));
    for (await idle(); pending; await idle()) this.clock.advance(20);
    return (await all).filter(Boolean).length;
  }

  async #gather(self: number, name: string): Promise<number> {
    this.questions++;
    const own = this.open[self]!;
    if (this.answerMs > 0) await this.clock.sleep(this.answerMs);
    if (this.isAway) throw new Error('away');
    expect(name).toStartWith('user:');
    const key = name.slice('user:'.length);
    return this.counts.reduce((sum, count, node) => sum + (node === self ? own : count.answer(key)), 0);
  }
}

test('a node asks from the connection on that would pass its share, and not before', async () => {
  const nodes = new Nodes(2, 10);
  await nodes.connectAll([0, 0, 0, 0, 0]);
  expect(nodes.questions).toBe(0);
  await nodes.connectAll([0]);
  expect(nodes.questions).toBe(1);
});

test('one node counts by itself', async () => {
  const nodes = new Nodes(1, 3);
  expect(await nodes.connectAll([0, 0, 0, 0, 0])).toBe(3);
  nodes.counts[0]!.left('ann');
  expect(await nodes.connect(0)).toBe(true);
  expect(await nodes.connect(0)).toBe(false);
  expect(nodes.questions).toBe(0);
});

test('below its share a node asks nobody', async () => {
  const nodes = new Nodes(3, 30);
  expect(await nodes.connectAll([0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0])).toBe(14);
  expect(nodes.questions).toBe(0);
});

test('all on one node, then on another: the limit holds', async () => {
  const nodes = new Nodes(3, 9);
  expect(await nodes.connectAll(Array<number>(20).fill(0))).toBe(9);
  // Below their own shares: being asked has told them that somebody passed its.
  expect(await nodes.connectAll([1, 2, 1, 2])).toBe(0);
  nodes.counts[0]!.left('ann');
  nodes.open[0]!--;
  nodes.clock.advance(1_000);
  expect(await nodes.connectAll([1])).toBe(1);
  expect(await nodes.connectAll([2])).toBe(0);
});

test('nodes that hold more than their share remind the others for as long as they do', async () => {
  const nodes = new Nodes(2, 10);
  await nodes.connectAll(Array<number>(10).fill(0));
  for (let minutes = 0; minutes < 10; minutes++) {
    for (let tick = 0; tick < 6; tick++) {
      nodes.clock.advance(10_000);
      for (const count of nodes.counts) {
        count.remind();
        count.sweep();
      }
      await idle();
      nodes.clock.advance(200);
      await idle();
    }
    expect(await nodes.connectAll([1])).toBe(0);
  }
});

test('a crowd at once on one node: exactly the limit, with few questions, and refusals without any', async () => {
  const nodes = new Nodes(2, 100);
  expect(await nodes.connectAll(Array<number>(5_000).fill(0))).toBe(100);
  expect(nodes.questions).toBeLessThan(10);
  const { questions } = nodes;
  for (let attempt = 0; attempt < 100; attempt++) expect(await nodes.connectAll([1])).toBe(0);
  expect(nodes.questions - questions).toBeLessThan(3);
});

test('a node that is gone and not yet missed makes each question last a second: the limit holds', async () => {
  const nodes = new Nodes(3, 9);
  nodes.answerMs = 1_000;
  expect(await nodes.connectAll(Array<number>(20).fill(0))).toBe(9);
  expect(await nodes.connectAll(Array<number>(20).fill(1))).toBe(0);
});

test('others that cannot be asked count as having none: nobody is locked out', async () => {
  const nodes = new Nodes(2, 10);
  nodes.isAway = true;
  expect(await nodes.connectAll(Array<number>(20).fill(0))).toBe(10);
  expect(await nodes.connectAll(Array<number>(20).fill(1))).toBe(10);
});

test('what is over is forgotten; what never joined cannot leave', async () => {
  const nodes = new Nodes(2, 2);
  await nodes.connectAll([0, 0, 0, 1, 1]);
  nodes.counts[1]!.left('nobody');
  for (const [node, count] of nodes.counts.entries()) {
    for (let open = nodes.open[node]!; open > 0; open--) count.left('ann');
    count.left('ann');
  }
  nodes.clock.advance(30_000);
  for (const count of nodes.counts) count.sweep();
  expect(nodes.counts.map(({ size }) => size)).toEqual([0, 0]);
});

/** One node whose questions a test answers, in the order in which they were asked. */
function asking(max: number) {
  const clock = new HandClock();
  const questions: { readonly key: string; readonly answer: (count: number) => void }[] = [];
  const connections = (key: string): Promise<number> => new Promise((answer) => questions.push({ key, answer }));
  const count = new ConnectionCount({ max, prefix: '', whole: { nodes: () => 2, connections }, clock });
  return { clock, questions, count };
}

test('an answer that is on its way counts, however long it takes', async () => {
  const { clock, questions, count } = asking(2);
  count.joined('ann');
  const asked = count.ask('ann');
  clock.advance(5_000);
  count.sweep();
  questions[0]!.answer(2);
  await asked;
  expect(count.hasRoom('ann')).toBe(false);
});

test('whoever comes while a question is on its way waits for the answer to a later one', async () => {
  const { clock, questions, count } = asking(4);
  for (let here = 0; here < 2; here++) count.joined('ann');
  void count.ask('ann');
  let isOver = false;
  void count.ask('ann')?.then(() => (isOver = true));
  questions[0]!.answer(2);
  await idle();
  expect(isOver).toBe(false);
  clock.advance(100);
  await idle();
  questions[1]!.answer(4);
  await idle();
  expect([isOver, questions.length, count.hasRoom('ann')]).toEqual([true, 2, false]);
});

test('the others are reminded of the keys alone that have more than their share here', () => {
  const { questions, count } = asking(4);
  for (const key of ['few', 'some', 'some', 'many', 'many', 'many']) count.joined(key);
  count.remind();
  expect(questions.map(({ key }) => key)).toEqual(['many']);
});
