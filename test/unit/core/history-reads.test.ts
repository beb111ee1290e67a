// One read of the log for all who lack a part of it. Each gets what the log could have answered to it alone, at some
// moment between its question and its answer: the log grows, is trimmed and is lost meanwhile.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { Publication } from '../../../src/core/publication.ts';
import { SharedRead, type Reader } from '../../../src/core/history-reads.ts';
import type { HistoryPage } from '../../../src/core/sync-adapter.ts';
import type { Position } from '../../../src/protocol/position.ts';
import { idle } from '../../support/hub.ts';

const pageSize = 5;

/** A log that answers pages as an adapter does, with `cut` publications at most, as a limit in bytes would have it. */
class Log {
  epoch = 1;
  head = 0;
  oldest = 1;

  page(since: Position, cut: number): HistoryPage {
    const head = { epoch: String(this.epoch), offset: this.head };
    if (since.epoch !== head.epoch || since.offset > this.head) {
      return { head, publications: [], complete: false, gap: 'epoch_changed' };
    }
    const from = Math.max(this.oldest, since.offset + 1);
    const to = Math.min(this.head, from + Math.min(cut, pageSize) - 1);
    const publications = Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => {
      const fields = { channel: 'a', epoch: head.epoch, offset: from + index, data: '0', at: 0 };
      return new Publication(fields);
    });
    if (from > since.offset + 1) return { head, publications, complete: false, gap: 'trimmed' };
    return { head, publications, complete: (publications.at(-1)?.offset ?? since.offset) === this.head };
  }

  /** What may be said of a position by this state of the log. */
  allows(since: Position, page: HistoryPage): boolean {
    const { head, publications, gap, complete } = page;
    if (head.epoch !== String(this.epoch) || head.offset !== this.head) return false;
    const whole = this.page(since, pageSize);
    if (whole.gap !== gap) return false;
    const offsets = publications.map(({ offset }) => offset);
    const first = gap === undefined ? since.offset + 1 : this.oldest;
    const expected = Array.from({ length: offsets.length }, (_, index) => first + index);
    if (offsets.join() !== expected.join() || (offsets.at(-1) ?? 0) > this.head) return false;
    if (gap !== undefined) return !complete;
    // What is neither complete nor brings anything would be asked for again without end.
    return complete === ((offsets.at(-1) ?? since.offset) === this.head) && (complete || offsets.length > 0);
  }
}

type Step =
  | { readonly do: 'ask'; readonly behind: number }
  | { readonly do: 'read' | 'answer' | 'lose' }
  | { readonly do: 'grow' | 'trim'; readonly by: number }
  | { readonly do: 'cut'; readonly to: number };

const steps = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('ask' as const), behind: fc.integer({ min: -2, max: 14 }) }) },
    { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('read' as const, 'answer' as const) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('grow' as const), by: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('trim' as const), by: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('cut' as const), to: fc.integer({ min: 1, max: 5 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('lose' as const) }) },
  ),
  { minLength: 5, maxLength: 60, size: 'max' },
);

interface Asked {
  readonly since: Position;
  /** Every state of the log since the question. */
  readonly states: Log[];
  answer: HistoryPage | undefined;
}

class Story {
  readonly log = Object.assign(new Log(), { head: 20 });
  readonly asked: Asked[] = [];
  readonly #reads: { readonly since: Position; page?: HistoryPage; readonly answer: (page: HistoryPage) => void }[] =
    [];
  readonly #shared = new SharedRead((since) => {
    this.reads++;
    return new Promise((answer) => this.#reads.push({ since, answer }));
  }, pageSize);
  #cut = pageSize;
  reads = 0;

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case 'ask':
        this.#ask(Math.max(0, this.log.head - step.behind));
        break;
      case 'read':
        this.#carryOut();
        break;
      case 'answer':
        this.#answer();
        break;
      case 'grow':
        this.log.head += step.by;
        break;
      case 'trim':
        this.log.oldest = Math.min(this.log.head + 1, this.log.oldest + step.by);
        break;
      case 'cut':
        this.#cut = step.to;
        break;
      case 'lose':
        Object.assign(this.log, { epoch: this.log.epoch + 1, head: 0, oldest: 1 });
    }
    await idle();
    this.#note();
  }

  async rest(): Promise<void> {
    for (let round = 0; this.asked.some(({ answer }) => answer === undefined); round++) {
      if (round > 1_000) throw new Error('somebody is never answered');
      this.#carryOut();
      this.#answer();
      await idle();
    }
  }

  #ask(offset: number): void {
    const asked: Asked = { since: { epoch: String(this.log.epoch), offset }, states: [], answer: undefined };
    this.asked.push(asked);
    void this.#shared.page(asked.since, { account: 'test' }).then((page) => {
      asked.answer = page;
    });
    this.#note();
  }

  #note(): void {
    for (const { answer, states } of this.asked)
      if (answer === undefined) states.push(Object.assign(new Log(), this.log));
  }

  #carryOut(): void {
    const read = this.#reads[0];
    if (read !== undefined) read.page ??= this.log.page(read.since, this.#cut);
  }

  #answer(): void {
    const read = this.#reads[0];
    if (read?.page === undefined) return;
    this.#reads.shift();
    read.answer(read.page);
  }
}

test('each gets what the log could have answered to it alone', async () => {
  const property = fc.asyncProperty(steps, async (taken) => {
    const story = new Story();
    for (const step of taken) await story.take(step);
    await story.rest();
    for (const { since, states, answer } of story.asked) {
      // A page may be from before the question, if it says nothing that a later one would take back.
      const told = answer === undefined ? 'nothing' : JSON.stringify({ since, ...answer });
      expect([told, answer !== undefined && isTrue(since, states, answer)]).toEqual([told, true]);
    }
  });
  await fc.assert(property, { numRuns: 2_000 });
}, 60_000);

/** Publications and trimming hold for ever; that a position is not of the log must be so after the question. */
function isTrue(since: Position, states: readonly Log[], page: HistoryPage): boolean {
  if (states.some((log) => log.allows(since, page))) return true;
  const [first] = states;
  if (first === undefined || page.gap === 'epoch_changed' || page.head.epoch !== since.epoch) return false;
  const before = Object.assign(new Log(), { epoch: Number(page.head.epoch), head: page.head.offset });
  const trimmedTo = (page.gap === undefined ? 0 : (page.publications[0]?.offset ?? page.head.offset + 1)) - 1;
  before.oldest = Math.max(1, trimmedTo + 1);
  return page.head.offset >= since.offset && before.allows(since, page);
}

test('a crowd that stands about at the same place costs two reads', async () => {
  const story = new Story();
  for (const behind of [2, 5, 3, 1, 4, 5, 2]) await story.take({ do: 'ask', behind });
  await story.rest();
  expect(story.reads).toBe(2);
});

// The one read of a crowd took longer than a second on a busy machine, and 80 clients were refused for it.
test('a read that fails once is tried again where many wait, and not for one alone', async () => {
  let failures = 0;
  const log = Object.assign(new Log(), { head: 20 });
  const shared = new SharedRead(async (since) => {
    await idle();
    if (failures-- > 0) throw new Error('late');
    return log.page(since, pageSize);
  }, pageSize);
  const since = { epoch: '1', offset: 18 };
  for (const [waiting, failing, outcome] of [
    [2, 1, 'fulfilled'],
    [2, 1, 'fulfilled'],
    [2, 2, 'rejected'],
    [2, 1, 'fulfilled'],
    [1, 1, 'rejected'],
  ] as const) {
    failures = failing;
    const pages = Array.from({ length: waiting }, () => shared.page(since, { account: 'a' }));
    const statuses = (await Promise.allSettled(pages)).map(({ status }) => status);
    expect(statuses).toEqual(pages.map(() => outcome));
  }
});

test('a read that fails rejects those it was for, and the next ones are read for', async () => {
  let fails = true;
  const log = Object.assign(new Log(), { head: 20 });
  const shared = new SharedRead(async (since) => {
    await idle();
    if (fails) throw new Error('away');
    return log.page(since, pageSize);
  }, pageSize);
  const since = { epoch: '1', offset: 18 };
  const failed = [shared.page(since, { account: 'a' }), shared.page(since, { account: 'b' })];
  expect((await Promise.allSettled(failed)).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  fails = false;
  expect((await shared.page(since, { account: 'a' })).publications.map(({ offset }) => offset)).toEqual([19, 20]);
});

/** A shared read whose pages a test answers, of a log from 1 to its head. */
class Staged {
  readonly log = Object.assign(new Log(), { head: 20 });
  /** Where each read began. */
  readonly from: number[] = [];
  readonly answers = new Map<string, HistoryPage>();
  readonly #pending: ((page: HistoryPage) => void)[] = [];
  readonly #shared = new SharedRead(({ offset }) => {
    this.from.push(offset);
    return new Promise((answer) => this.#pending.push(answer));
  }, pageSize);

  async ask(name: string, offset: number, epoch = '1'): Promise<void> {
    void this.#shared.page({ epoch, offset }, { account: name }).then((page) => this.answers.set(name, page));
    await idle();
  }

  /** All ask in one step. */
  async askAtOnce(...offsets: readonly number[]): Promise<void> {
    await Promise.all(offsets.map((offset) => this.ask(String(offset), offset)));
  }

  /** What the log holds at this moment, for the read that is under way. */
  page(cut = pageSize): HistoryPage {
    return this.log.page({ epoch: '1', offset: this.from.at(-1)! }, cut);
  }

  async answer(page = this.page()): Promise<void> {
    this.#pending.shift()!(page);
    await idle();
  }

  offsets(name: string): number[] | undefined {
    return this.answers.get(name)?.publications.map(({ offset }) => offset);
  }
}

// As long as somebody came who stood a little lower, the read began there, and its page ended before the one who waited.
test('one who was passed over is next, whoever comes', async () => {
  const staged = new Staged();
  await staged.askAtOnce(10, 8);
  for (const later of [7, 6, 7]) {
    const page = staged.page(1);
    await staged.ask(`later ${later}`, later);
    await staged.answer(page);
  }
  expect(staged.from.slice(0, 2)).toEqual([8, 10]);
  expect([staged.offsets('8'), staged.offsets('10')]).toEqual([[9], [11]]);
});

test('one who came while others were read for is read for with those who stand near', async () => {
  const staged = new Staged();
  await staged.ask('first', 20);
  await staged.ask('second', 10);
  await staged.ask('third', 8);
  await staged.answer();
  await staged.answer();
  expect(staged.from).toEqual([20, 8]);
  expect([staged.offsets('second'), staged.offsets('third')]).toEqual([
    [11, 12, 13],
    [9, 10, 11, 12, 13],
  ]);
});

test('a read begins no lower than a page reaches, and in no other log', async () => {
  const far = new Staged();
  await far.askAtOnce(10, 5);
  expect(far.from).toEqual([10]);
  const near = new Staged();
  await near.askAtOnce(10, 6);
  expect(near.from).toEqual([6]);
  const other = new Staged();
  await Promise.all([other.ask('this', 10), other.ask('other', 8, '2')]);
  expect(other.from).toEqual([10]);
});

// The log had grown up to there while the page was on its way: it was told a gap that was none.
test('a position past the head is told so from a read that began after the question', async () => {
  const staged = new Staged();
  await staged.ask('before', 22);
  const page = staged.page();
  staged.log.head = 25;
  await staged.ask('after', 22);
  await staged.answer(page);
  expect([staged.answers.get('before')?.gap, staged.answers.get('after')]).toEqual(['epoch_changed', undefined]);
  await staged.answer();
  expect([staged.answers.get('after')?.gap, staged.offsets('after')]).toEqual([undefined, [23, 24, 25]]);
});

test('a page says to each who waited what it says of his position', async () => {
  const past = new Staged();
  await past.askAtOnce(18, 22);
  await past.answer();
  expect([past.offsets('18'), past.answers.get('22')?.gap]).toEqual([[19, 20], 'epoch_changed']);
  const trimmed = new Staged();
  trimmed.log.oldest = 21;
  await trimmed.askAtOnce(16, 19, 20);
  await trimmed.answer();
  const gaps = ['16', '19', '20'].map((name) => trimmed.answers.get(name)?.gap);
  expect([gaps, trimmed.answers.get('20')?.complete, trimmed.from]).toEqual([
    ['trimmed', 'trimmed', undefined],
    true,
    [16],
  ]);
});

test('if one of those that share a read asks only once, so does the read', async () => {
  const log = Object.assign(new Log(), { head: 20 });
  const readers: Reader[] = [];
  const shared = new SharedRead(async (since, reader) => {
    readers.push(reader);
    await idle();
    return log.page(since, pageSize);
  }, pageSize);
  const since = { epoch: '1', offset: 18 };
  await Promise.all(['a', 'b'].map((account) => shared.page(since, { account })));
  await Promise.all([shared.page(since, { account: 'a' }), shared.page(since, { account: 'b', asksOnce: true })]);
  expect(readers).toEqual([
    { account: 'a', asksOnce: false },
    { account: 'a', asksOnce: true },
  ]);
});
