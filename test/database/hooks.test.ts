// The tables of the hooks: what two nodes have of one subject, together and apart, and how many events may wait.

import { expect, test } from 'bun:test';
import { connect } from '../../src/database/connect.ts';
import { HookStore } from '../../src/hooks/store.ts';
import type { Subject } from '../../src/hooks/subjects.ts';
import { database } from './support.ts';

const { url, sql } = await database();
const pool = connect(url, { applicationName: 'test', max: 4 });

const channel = (name: string): Subject => ({ kind: 'channel', channel: name, who: '' });
const here = (...subjects: Subject[]) => subjects.map((subject) => ({ subject, isHere: true }));
const gone = (...subjects: Subject[]) => subjects.map((subject) => ({ subject, isHere: false }));

async function events(): Promise<string[]> {
  const rows = await sql`delete from realtime.hook_events returning seq, event, channel, who`;
  return rows
    .toSorted((one, other) => Number(one['seq']) - Number(other['seq']))
    .map(({ event, channel: name, who }) => [event, name, who].filter((text) => text !== '').join(' '));
}

test('the first of all nodes begins, the last one ends, and whoever is known twice is told once', async () => {
  const [one, two] = [new HookStore(pool, 'one', 100), new HookStore(pool, 'two', 100)];
  expect(await one.change(here(channel('a')))).toEqual({ known: false, lost: 0 });
  await two.change(
    here(channel('a'), { kind: 'member', channel: 'a', who: 'u:ann' }, { kind: 'user', channel: '', who: 'u:ann' }),
  );
  expect(await one.change(here(channel('a')))).toEqual({ known: true, lost: 0 });
  expect(await events()).toEqual(['channel.occupied a', 'member.joined a u:ann', 'user.online u:ann']);
  await one.change(gone(channel('a')));
  await one.change(gone(channel('a'), channel('never')));
  expect(await events()).toEqual([]);
  await two.change(gone(channel('a')));
  expect(await events()).toEqual(['channel.vacated a']);
});

test('nodes that lose the last of many at once tell each end once', async () => {
  const stores = ['n1', 'n2', 'n3'].map((name) => new HookStore(pool, name, 10_000));
  const all = Array.from({ length: 200 }, (_, index) => channel(`c${index}`));
  await Promise.all(stores.map((store) => store.change(here(...all))));
  expect(new Set(await events()).size).toBe(200);
  await Promise.all(stores.map((store) => store.change(gone(...all))));
  const ends = await events();
  expect([ends.length, new Set(ends).size]).toEqual([200, 200]);
});

test('what a dead node had ends once, unless another has it; one that lives again is not known', async () => {
  const [dead, live] = [new HookStore(pool, 'dead', 100), new HookStore(pool, 'live', 100)];
  await dead.change(here(channel('both'), channel('lonely')));
  await live.change(here(channel('both')));
  await events();
  await dead.end(0);
  await Promise.all([live.sweep(), live.sweep()]);
  expect(await events()).toEqual(['channel.vacated lonely']);
  expect(await dead.change([])).toEqual({ known: false, lost: 0 });
  await dead.end(60);
  await live.sweep();
  expect(await dead.change([])).toMatchObject({ known: true });
});

test('events past the limit are dropped, the oldest first, and counted', async () => {
  const store = new HookStore(pool, 'busy', 5);
  await events();
  expect((await store.change(here(...['1', '2', '3', '4'].map(channel)))).lost).toBe(0);
  expect((await store.change(here(...['5', '6', '7'].map(channel)))).lost).toBe(2);
  const waiting = await store.waiting(100);
  expect(waiting.map((event) => event.channel)).toEqual(['3', '4', '5', '6', '7']);
  expect(waiting.every(({ id, at }) => /^[0-9a-f-]{36}$/.test(id) && Math.abs(Date.now() - at) < 60_000)).toBe(true);
  await store.taken(waiting.slice(0, 2));
  expect(await store.pending()).toBe(3);
  await pool.end();
});
