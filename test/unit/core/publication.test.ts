// What a publication says that it takes in memory is what the runtime takes for it, in every alphabet.

import { heapStats } from 'bun:jsc';
import { expect, test } from 'bun:test';
import { Publication } from '../../../src/core/publication.ts';

const count = 5_000;
/** What was measured stays, so that the next measurement does not lose it. */
const held: Publication[] = [];

function heapBytes(): number {
  Bun.gc(true);
  Bun.gc(true);
  return heapStats().heapSize;
}

/** As it comes from a table, with a frame that was sent. */
function publicationOf(text: string, offset: number): Publication {
  const row = {
    channel: `room:${offset % 100}`,
    offset,
    epoch: 'aaaaaaaabbbbbbbbcccccccc',
    xid: String(100_000 + offset),
  };
  const none = { user: null, connection: null, except: null };
  const data = JSON.stringify({ text, offset });
  const read = JSON.parse(JSON.stringify({ ...row, ...none, data, at: Date.now() })) as never;
  const publication = Publication.ofRow(read);
  Buffer.from(publication.frame);
  return publication;
}

test.each([
  ['ASCII', 'x'.repeat(1_000)],
  ['Cyrillic', 'ж'.repeat(1_000)],
  ['mostly ASCII', `${'x'.repeat(999)}ж`],
  ['short', 'x'],
])('%s', (_what, text) => {
  publicationOf(text, 0);
  const before = heapBytes();
  for (let offset = 0; offset < count; offset++) held.push(publicationOf(text, offset));
  const each = (heapBytes() - before) / count;
  expect(held.at(-1)!.bytes / each).toBeWithin(0.75, 1.35);
});
