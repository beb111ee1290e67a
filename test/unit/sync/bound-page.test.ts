// A page of history is bounded in bytes, and says so.

import { expect, test } from 'bun:test';
import { boundPage } from '../../../src/sync/bound-page.ts';
import { Publication } from '../../../src/core/publication.ts';

const publications = [1, 2, 3, 4].map(
  (offset) => new Publication({ channel: 'a', offset, epoch: 'e', data: '"xxxxxxxx"', at: 0 }),
);
const page = { head: { epoch: 'e', offset: 4 }, publications, complete: true };
const offsets = (bytesMax: number, offset?: number) => {
  const since = offset === undefined ? undefined : { epoch: 'e', offset };
  const bounded = boundPage(page, { limit: 10, since, bytesMax });
  return [bounded.publications.map((publication) => publication.offset), bounded.complete];
};

test('what fits is left as it is', () => {
  expect(boundPage(page, { limit: 10, bytesMax: 40 })).toBe(page);
});

test('after a position the first ones are kept, otherwise the newest, and at least one', () => {
  expect(offsets(25, 0)).toEqual([[1, 2], false]);
  expect(offsets(25)).toEqual([[3, 4], false]);
  expect(offsets(1, 0)).toEqual([[1], false]);
  expect(offsets(1)).toEqual([[4], false]);
});
