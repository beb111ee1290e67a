// One recovery by itself, on a log that a test moves: what it holds, what it keeps in memory and gives back, and what the
// subscriber is told, in which order.

import { describe, expect, test } from 'bun:test';
import { PageBudget } from '../../../src/core/page-budget.ts';
import { Publication } from '../../../src/core/publication.ts';
import { Recovery, type RecoveryLimits, type RecoveryPorts } from '../../../src/core/recovery.ts';
import type { Snapshot } from '../../../src/core/snapshot.ts';
import type { HistoryPage } from '../../../src/core/sync-adapter.ts';
import type { Position } from '../../../src/protocol/position.ts';
import { idle, RecordingFanout, RecordingOutlet } from '../../support/hub.ts';

const connection = 'c';
const channel = 'a';
const limits: RecoveryLimits = {
  holdMax: 3,
  holdBytesMax: 10,
  pageSize: 2,
  pageBytesMax: 1_000_000,
  timeoutMs: 1_000,
};
const budgetBytes = 100;

function publication(offset: number, data = '0', epoch = 'e'): Publication {
  return new Publication({ channel, epoch, offset, data, at: 0 });
}

interface Read {
  readonly since: Position;
  readonly answer: (page: HistoryPage) => void;
}

/** The log, the node before it and one subscriber. Reads wait to be answered. */
class Stage implements RecoveryPorts {
  readonly connection = connection;
  readonly channel = channel;
  readonly pages = new PageBudget({
    bytesMax: budgetBytes,
    pageBytesMin: 1,
    socketBytesMax: 1_000_000,
    shareBytesMax: 1_000_000,
    shareBytesMin: 1_000_000,
  });
  readonly outlet = new RecordingOutlet(new RecordingFanout('websocket'));
  readonly reads: Read[] = [];
  readonly recovery: Recovery;
  readonly slices: number[] = [];
  /** What `slice` answers. */
  turn: Promise<void> | undefined;
  /** What `room` answers. */
  hasRoom: boolean | Promise<boolean> = true;
  readsCount = 0;
  counted = 0;
  countedRows = 0;
  /** Each frame of rows, and the position if it came with it. */
  readonly rows: [frame: string, offset: number | undefined][] = [];
  pauses = 0;
  isLive = false;
  now = 0;
  #log: Publication[];
  #head: Position;

  constructor(since: number, log: readonly Publication[], snapshot?: Snapshot) {
    this.#log = [...log];
    this.#head = this.#end();
    this.recovery = new Recovery({ epoch: 'e', offset: since }, this, limits, snapshot);
    this.outlet.snapshot = (_channel: string, frame: string, position?: Position) => {
      this.rows.push([frame, position?.offset]);
    };
  }

  read(since: Position): Promise<HistoryPage> {
    this.readsCount++;
    return new Promise((answer) => this.reads.push({ since, answer }));
  }

  slice(publications: number): Promise<void> | undefined {
    this.slices.push(publications);
    return this.turn;
  }

  room(): boolean | Promise<boolean> {
    return this.hasRoom;
  }

  head(): Position {
    return this.#head;
  }

  gap(reason: 'trimmed' | 'epoch_changed' | 'overflow', position: Position): void {
    this.outlet.gap({ channel, position, reason });
  }

  sent(count: number): void {
    this.counted += count;
  }

  sentRows(): void {
    this.countedRows++;
  }

  goLive(): void {
    this.isLive = true;
  }

  async pause(): Promise<void> {
    if (++this.pauses > 100) throw new Error('pauses without end');
    await idle();
  }

  monotonic(): number {
    return this.now;
  }

  // Moved by the test

  /** Appended, and seen by this node. */
  publish(...publications: readonly Publication[]): void {
    for (const each of publications) {
      this.append(each);
      this.#head = this.#end();
      this.recovery.hold(each);
    }
  }

  /** Appended, and not seen by this node yet. */
  append(...publications: readonly Publication[]): void {
    this.#log.push(...publications);
  }

  /** This node has seen all, and told those that recover. */
  jump(reason: 'trimmed' | 'epoch_changed', log: readonly Publication[]): void {
    this.#log = [...log];
    this.#head = this.#end();
    this.recovery.jump(reason, this.#head);
  }

  /** Whoever waits for a read gets a page. */
  async answer(page = this.page(this.reads[0]!.since)): Promise<void> {
    this.reads.shift()!.answer(page);
    await idle();
  }

  page(since: Position, pageSize = limits.pageSize): HistoryPage {
    const head = this.#end();
    const rest = this.#log.filter(({ offset }) => offset > since.offset);
    const publications = rest.slice(0, pageSize);
    return { head, publications, complete: publications.length === rest.length };
  }

  get story(): (number | string)[] {
    return this.outlet.story(channel);
  }

  #end(): Position {
    const last = this.#log.at(-1);
    return { epoch: last?.epoch ?? 'e', offset: last?.offset ?? 0 };
  }
}

async function run(stage: Stage): Promise<{ done: boolean | undefined }> {
  const state: { done: boolean | undefined } = { done: undefined };
  void stage.recovery.run(stage.outlet).then((done) => (state.done = done));
  await idle();
  return state;
}

describe('what is held', () => {
  test.each([
    { what: 'as many as may be', data: ['0', '0', '0'], reads: 1 },
    { what: 'one more', data: ['0', '0', '0', '0'], reads: 3 },
    { what: 'as many bytes as may be', data: ['00000', '00000'], reads: 1 },
    { what: 'one byte more', data: ['00000', '000000'], reads: 2 },
    { what: 'a single one that is larger', data: ['0'.repeat(50)], reads: 1 },
  ])('$what: $reads reads of the log', async ({ data, reads }) => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    const running = await run(stage);
    stage.publish(...data.map((text, index) => publication(3 + index, text)));
    while (stage.reads.length > 0) await stage.answer();
    expect(stage.story).toEqual(Array.from({ length: 2 + data.length }, (_, index) => index + 1));
    expect([running.done, stage.isLive, stage.readsCount]).toEqual([true, true, reads]);
    expect([stage.counted, stage.pages.bytes, stage.pages.recovering]).toEqual([2 + data.length, 0, 0]);
  });

  // Bytes of what was thrown away counted on, so that the next two overflowed again.
  test('counts anew after it was too much', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    await run(stage);
    stage.publish(publication(3, '00000'), publication(4, '000000'));
    await stage.answer();
    stage.publish(publication(5), publication(6));
    await stage.answer();
    expect([stage.story, stage.readsCount, stage.isLive]).toEqual([[1, 2, 3, 4, 5, 6], 2, true]);
  });

  test('a hold that overflowed is one gap when the time is over', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    await run(stage);
    stage.publish(...[3, 4, 5, 6].map((offset) => publication(offset)));
    stage.now = limits.timeoutMs + 1;
    await stage.answer();
    expect([stage.story, stage.isLive]).toEqual([[1, 2, 'gap:overflow@6'], true]);
  });
});

test('the time is over after it, not with it', async () => {
  const stage = new Stage(
    0,
    [1, 2, 3, 4, 5, 6].map((offset) => publication(offset)),
  );
  await run(stage);
  stage.now = limits.timeoutMs;
  await stage.answer();
  expect([stage.story, stage.reads.length]).toEqual([[1, 2], 1]);
  stage.now++;
  await stage.answer();
  expect([stage.story, stage.isLive]).toEqual([[1, 2, 3, 4, 'gap:overflow@6'], true]);
});

describe('a first page that waits for its subscriber', () => {
  async function prepared(data = '0'): Promise<{ stage: Stage; whole: boolean | undefined }> {
    const stage = new Stage(0, [publication(1, data), publication(2, data)]);
    const preparing = stage.recovery.prepare();
    await stage.answer();
    return { stage, whole: await preparing };
  }

  test('is sent, and read once', async () => {
    const { stage, whole } = await prepared();
    expect([whole, stage.pages.bytes]).toEqual([true, 2]);
    const { done } = await run(stage);
    expect([done, stage.story, stage.readsCount, stage.pages.bytes]).toEqual([true, [1, 2], 1, 0]);
  });

  // The budget is the node's: what a subscriber took along that left before it was told anything was missing for ever.
  test('gives back its bytes when the subscriber leaves', async () => {
    const { stage } = await prepared();
    stage.recovery.cancel();
    expect(stage.pages.bytes).toBe(0);
    expect([(await run(stage)).done, stage.story]).toEqual([false, []]);
  });

  test('takes none when the subscriber leaves while it is read', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    const preparing = stage.recovery.prepare();
    stage.recovery.cancel();
    await stage.answer();
    await preparing;
    expect(stage.pages.bytes).toBe(0);
  });

  test('gives back its bytes when the channel loses its place, and is not sent', async () => {
    const { stage } = await prepared();
    stage.jump('epoch_changed', [publication(1, '0', 'f')]);
    expect(stage.pages.bytes).toBe(0);
    const { done } = await run(stage);
    expect([done, stage.story, stage.readsCount]).toEqual([true, ['gap:epoch_changed@1'], 1]);
  });

  test('is read again if there was no room for it', async () => {
    const { stage, whole } = await prepared('0'.repeat(budgetBytes));
    expect([whole, stage.pages.bytes]).toEqual([true, 0]);
    await run(stage);
    await stage.answer();
    expect([stage.story, stage.readsCount, stage.pages.bytes]).toEqual([[1, 2], 2, 0]);
  });

  test('is kept without room as far as it says where a gap ends, and costs nothing', async () => {
    const stage = new Stage(
      0,
      [3, 4].map((offset) => publication(offset, '0'.repeat(budgetBytes))),
    );
    const preparing = stage.recovery.prepare();
    await stage.answer({ ...stage.page({ epoch: 'e', offset: 0 }), complete: false, gap: 'trimmed' });
    expect([await preparing, stage.pages.bytes]).toEqual([false, 0]);
    await run(stage);
    await stage.answer();
    expect([stage.story, stage.readsCount, stage.pages.bytes]).toEqual([['gap:trimmed@2', 3, 4], 2, 0]);
  });

  // It was answered `recovered: true`, and then a gap.
  test('that the channel made void while it was read says that something is missing', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    const preparing = stage.recovery.prepare();
    const read = stage.page({ epoch: 'e', offset: 0 });
    stage.jump('trimmed', [publication(9)]);
    expect(stage.recovery.position).toEqual({ epoch: '', offset: 0 });
    await stage.answer(read);
    expect([await preparing, stage.pages.bytes]).toEqual([false, 0]);
    await run(stage);
    expect([stage.story, stage.readsCount]).toEqual([['gap:trimmed@9'], 1]);
    expect(stage.recovery.position).toEqual({ epoch: 'e', offset: 9 });
  });
});

describe('a page', () => {
  test('that the channel made void while it was read is not sent, and its gap is not told', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    const running = await run(stage);
    stage.jump('epoch_changed', [publication(1, '0', 'f')]);
    await stage.answer({
      head: { epoch: 'e', offset: 2 },
      publications: [publication(2)],
      complete: false,
      gap: 'trimmed',
    });
    expect([running.done, stage.story]).toEqual([true, ['gap:epoch_changed@1']]);
  });

  test('is not sent to one who left while it was read, nor a gap', async () => {
    const stage = new Stage(0, [publication(3)]);
    const running = await run(stage);
    stage.recovery.cancel();
    await stage.answer({ ...stage.page({ epoch: 'e', offset: 0 }), complete: false, gap: 'trimmed' });
    expect([running.done, stage.story, stage.isLive]).toEqual([false, [], false]);
  });

  test('ends where the subscriber leaves, or the channel loses its place, before its turn', async () => {
    for (const leaves of [true, false]) {
      const stage = new Stage(0, [publication(1), publication(2)]);
      const turn = Promise.withResolvers<void>();
      stage.turn = turn.promise;
      const running = await run(stage);
      await stage.answer();
      if (leaves) stage.recovery.cancel();
      else stage.jump('epoch_changed', [publication(1, '0', 'f')]);
      turn.resolve();
      for (let turns = 0; turns < 5 && running.done === undefined; turns++) await idle();
      expect([running.done, stage.story]).toEqual(leaves ? [false, []] : [true, ['gap:epoch_changed@1']]);
      expect([stage.isLive, stage.pages.recovering]).toEqual([!leaves, 0]);
    }
  });

  // What stood after the gap was sent before it, as if nothing were missing.
  test('goes on behind a gap only after it was told', async () => {
    const stage = new Stage(
      0,
      [1, 2, 3, 4].map((offset) => publication(offset)),
    );
    const turn = Promise.withResolvers<void>();
    stage.turn = turn.promise;
    await run(stage);
    await stage.answer(stage.page({ epoch: 'e', offset: 0 }, 4));
    stage.recovery.jump('trimmed', { epoch: 'e', offset: 2 });
    stage.turn = undefined;
    turn.resolve();
    for (let turns = 0; turns < 5 && stage.reads.length === 0; turns++) await idle();
    await stage.answer();
    expect([stage.story, stage.isLive]).toEqual([['gap:trimmed@2', 3, 4], true]);
  });

  test('that begins with a gap needs no second read', async () => {
    const stage = new Stage(
      0,
      [3, 4].map((offset) => publication(offset)),
    );
    await run(stage);
    await stage.answer({ ...stage.page({ epoch: 'e', offset: 0 }), complete: false, gap: 'trimmed' });
    expect([stage.story, stage.readsCount, stage.isLive]).toEqual([['gap:trimmed@2', 3, 4], 1, true]);
  });

  test('goes out a hundred at a time, each with its turn', async () => {
    const log = Array.from({ length: 250 }, (_, index) => publication(index + 1));
    const stage = new Stage(0, log);
    await run(stage);
    await stage.answer(stage.page({ epoch: 'e', offset: 0 }, 250));
    expect(stage.slices).toEqual([100, 100, 50]);
    expect([stage.story, stage.counted]).toEqual([log.map(({ offset }) => offset), 250]);
  });

  test('past what this node has seen is left to the live flow', async () => {
    const stage = new Stage(0, [publication(1)]);
    await run(stage);
    stage.append(publication(2));
    await stage.answer();
    expect([stage.story, stage.isLive, stage.pauses]).toEqual([[1], true, 0]);
  });

  // Asked again at once, a log that lags was asked without end.
  test('that brings nothing is waited for before the next is read', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    await run(stage);
    for (let answers = 1; answers <= 3; answers++) {
      await stage.answer({ head: { epoch: 'e', offset: 0 }, publications: [], complete: true });
      await idle();
      expect([stage.pauses, stage.readsCount]).toEqual([answers, answers + 1]);
    }
    await stage.answer();
    expect([stage.story, stage.isLive, stage.pauses]).toEqual([[1, 2], true, 3]);
  });

  // The live flow would have brought what this node had not seen, after the gap that stood for it.
  test('whose gap ends past what this node has seen puts the subscriber where the node stands', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    await run(stage);
    stage.append(publication(8));
    await stage.answer({
      head: { epoch: 'e', offset: 8 },
      publications: [publication(8)],
      complete: false,
      gap: 'trimmed',
    });
    expect([stage.story, stage.isLive]).toEqual([['gap:trimmed@2'], true]);
  });

  test('waits for its socket only as far as there is room for the rest of it, and costs nothing afterwards', async () => {
    for (const { data, reads } of [
      { data: '0', reads: 1 },
      { data: '0'.repeat(budgetBytes), reads: 2 },
    ]) {
      const log = Array.from({ length: 150 }, (_, index) => publication(index + 1, data));
      const stage = new Stage(0, log);
      const room = Promise.withResolvers<boolean>();
      stage.hasRoom = room.promise;
      const running = await run(stage);
      await stage.answer(stage.page({ epoch: 'e', offset: 0 }, 150));
      expect(stage.pages.bytes).toBe(reads === 1 ? 50 : 0);
      stage.hasRoom = true;
      room.resolve(true);
      await idle();
      expect(stage.pages.bytes).toBe(0);
      if (reads === 2) await stage.answer(stage.page({ epoch: 'e', offset: 100 }, 150));
      expect([running.done, stage.story.length, stage.readsCount]).toEqual([true, 150, reads]);
    }
  });

  test('is the last for a socket that takes nothing in', async () => {
    for (const room of [false, Promise.resolve(false)]) {
      const stage = new Stage(0, [publication(1), publication(2)]);
      stage.hasRoom = room;
      const running = await run(stage);
      await stage.answer();
      expect([running.done, stage.isLive, stage.pages.bytes, stage.pages.recovering]).toEqual([false, false, 0, 0]);
    }
  });

  // What stood before the gap was sent, and was not counted.
  test('with a gap of the log in it is told in order, and all that is sent is counted', async () => {
    const stage = new Stage(0, [publication(1), publication(2, ''), publication(3), publication(4, '')]);
    await run(stage);
    await stage.answer(stage.page({ epoch: 'e', offset: 0 }, 4));
    expect(stage.story).toEqual([1, 'gap:trimmed@2', 3, 'gap:trimmed@4']);
    expect([stage.counted, stage.isLive]).toEqual([2, true]);
  });
});

test('one that has seen more than this node pauses until the node has caught up', async () => {
  const stage = new Stage(4, [publication(1), publication(2)]);
  const running = await run(stage);
  expect([running.done, stage.readsCount]).toEqual([undefined, 0]);
  expect(stage.pauses).toBeGreaterThan(0);
  stage.publish(...[3, 4, 5].map((offset) => publication(offset)));
  for (let turns = 0; turns < 5 && running.done === undefined; turns++) await idle();
  expect([running.done, stage.story, stage.readsCount]).toEqual([true, [5], 0]);
});

describe('a log that was lost', () => {
  const lost = (log: readonly Publication[]): HistoryPage => {
    const { epoch, offset } = log.at(-1)!;
    return { head: { epoch, offset }, publications: [], complete: false, gap: 'epoch_changed' };
  };

  // It was live in the log that is no more, and would have heard what came late of that.
  test('is known before this node knows: nothing of the old one is sent, and live it is with the node', async () => {
    const stage = new Stage(0, [publication(1), publication(2)]);
    await run(stage);
    const next = [publication(1, '0', 'f'), publication(2, '0', 'f')];
    await stage.answer(lost(next));
    stage.publish(publication(3));
    await stage.answer({ ...lost(next), complete: true, gap: undefined });
    expect([stage.story, stage.isLive]).toEqual([['gap:epoch_changed@2'], false]);
    stage.jump('epoch_changed', next);
    for (let turns = 0; turns < 5 && !stage.isLive; turns++) await idle();
    expect([stage.story, stage.isLive]).toEqual([['gap:epoch_changed@2', 'gap:epoch_changed@2'], true]);
  });

  test('is asked about by one who stands further on in the old one', async () => {
    const stage = new Stage(5, [publication(1, '0', 'f'), publication(2, '0', 'f')]);
    const running = await run(stage);
    expect(stage.pauses).toBe(0);
    await stage.answer(lost([publication(2, '0', 'f')]));
    expect([running.done, stage.story, stage.isLive]).toEqual([true, ['gap:epoch_changed@2'], true]);
  });
});

test('one that had seen more, and for which too much was held meanwhile, is live with the answer of the log', async () => {
  const stage = new Stage(7, [publication(1), publication(2)]);
  const running = await run(stage);
  stage.publish(...[3, 4, 5, 6, 7].map((offset) => publication(offset)));
  for (let turns = 0; turns < 5 && stage.reads.length === 0; turns++) await idle();
  const { pauses } = stage;
  await stage.answer();
  expect([running.done, stage.story, stage.readsCount, stage.pauses]).toEqual([true, [], 1, pauses]);
});

test('one whose connection ends while it is sent what was held does not count as live', async () => {
  const stage = new Stage(2, [publication(1), publication(2)]);
  stage.publish(publication(3));
  stage.outlet.onTold = () => stage.recovery.cancel();
  const running = await run(stage);
  expect([running.done, stage.story, stage.isLive]).toEqual([false, [3], false]);
});

describe('rows', () => {
  const snapshot: Snapshot = {
    frames: ['first', 'second', 'last'],
    position: { epoch: 'e', offset: 2 },
    // Of what came after the rows' position they hold one already.
    holds: ({ offset }) => offset === 3,
  };
  const log = [1, 2, 3, 4].map((offset) => publication(offset, offset === 3 ? '' : '0'));

  test('come first, the position with the last of them, and then what they do not hold', async () => {
    const stage = new Stage(2, log, snapshot);
    const nowhere = { epoch: '', offset: 0 };
    expect(stage.recovery.position).toEqual(nowhere);
    const rooms = [0, 1, 2].map(() => Promise.withResolvers<boolean>());
    stage.room = () => rooms[stage.rows.length - 1]?.promise ?? true;
    const running = await run(stage);
    for (const [index, room] of rooms.entries()) {
      expect(stage.rows).toHaveLength(index + 1);
      expect(stage.recovery.position).toEqual(index === 2 ? snapshot.position : nowhere);
      room.resolve(true);
      await idle();
    }
    expect(stage.rows).toEqual([
      ['first', undefined],
      ['second', undefined],
      ['last', 2],
    ]);
    stage.room = () => true;
    await stage.answer();
    expect([running.done, stage.story, stage.counted, stage.countedRows]).toEqual([true, [4], 1, 3]);
    expect(stage.slices).toEqual([100, 100, 100, 2]);
  });

  test('hold a gap of the log as well: who has them has missed nothing', async () => {
    const stage = new Stage(2, log, snapshot);
    const preparing = stage.recovery.prepare();
    await stage.answer();
    expect(await preparing).toBe(true);
    const other = new Stage(2, log);
    const preparingOther = other.recovery.prepare();
    await other.answer();
    expect(await preparingOther).toBe(false);
  });

  test.each(['before the turn of the next', 'with the last'])('end %s where the subscriber leaves', async (when) => {
    const stage = new Stage(2, log, snapshot);
    const turn = Promise.withResolvers<void>();
    const frames = when === 'with the last' ? 3 : 1;
    stage.room = () => {
      if (stage.rows.length === frames) {
        stage.turn = turn.promise;
        if (frames === 3) stage.recovery.cancel();
      }
      return true;
    };
    const running = await run(stage);
    stage.recovery.cancel();
    turn.resolve();
    await idle();
    expect([running.done, stage.rows.length, stage.readsCount, stage.isLive]).toEqual([false, frames, 0, false]);
  });

  test('end where a socket takes nothing in', async () => {
    const stage = new Stage(2, log, snapshot);
    stage.hasRoom = false;
    const running = await run(stage);
    expect([running.done, stage.rows.length, stage.readsCount, stage.pages.recovering]).toEqual([false, 1, 0, 0]);
  });
});
