// Data that travel through Redis compressed: what comes out is what went in, pages stay within their bytes, and what would
// not shrink is left alone.

import { expect, test } from 'bun:test';
import { pack, unpack } from '../../../src/sync/redis/packing.ts';
import { readPage, type ReadReply } from '../../../src/sync/redis/history.ts';

const text = (bytes: number): string => JSON.stringify({ text: 'é"\\ 😀 row '.repeat(bytes / 10) });

test('what is packed is unpacked the same, and smaller where it is large', () => {
  for (const data of ['1', '"~"', '{"a":"~b"}', text(100), text(2_000), text(400_000)]) {
    const packed = pack(data, 1);
    expect(unpack(packed)).toBe(data);
    expect(packed.length).toBeLessThanOrEqual(data.length);
  }
  expect(pack(text(2_000), 1).length).toBeLessThan(400);
});

test('what is short, or would not shrink, stays as it is, and so does all with 0', () => {
  expect(pack(text(500), 1_000)).toBe(text(500));
  expect(pack(text(500), 0)).toBe(text(500));
  const noise = JSON.stringify(Buffer.from(crypto.getRandomValues(new Uint8Array(3_000))).toString('base64'));
  expect(pack(noise, 1)).toBe(noise);
});

// Redis counts what it keeps: a page of rows that shrink to a hundredth would be a hundred times the limit.
test('a page holds so many bytes unpacked, goes on where it ended, and is never empty', () => {
  const packed = pack(text(50_000), 1);
  const entries = (...offsets: number[]): Buffer =>
    Buffer.from(offsets.map((offset) => `${offset}-0 5 \n${packed}`).join('\n'));
  const replyOf = (...offsets: number[]): ReadReply => [Buffer.from('e'), Buffer.from('4'), entries(...offsets), 0];
  const since = { epoch: 'e', offset: 0 };
  const page = readPage('c', replyOf(1, 2, 3, 4), { since, limit: 10, bytesMax: text(50_000).length * 2 });
  expect([page.publications.map(({ offset }) => offset), page.complete]).toEqual([[1, 2], false]);
  const small = readPage('c', replyOf(1, 2, 3, 4), { since, limit: 10, bytesMax: 10 });
  expect(small.publications.map(({ offset }) => offset)).toEqual([1]);
  const newest = readPage('c', replyOf(4, 3, 2, 1), { limit: 10, bytesMax: text(50_000).length * 2 });
  expect([newest.publications.map(({ offset }) => offset), newest.complete]).toEqual([[3, 4], false]);
});
