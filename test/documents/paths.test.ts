// What the documents say about the code's places is so: each path in them exists, and the table of rooms and floors is
// the one by which imports are checked.

import { expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readDocument, readDocuments, tableAfter } from '../support/documents.ts';
import { floors } from '../support/tidy/imports.ts';
import { projectRoot } from '../support/tidy/source-files.ts';

const topFolders = /^(?:src|test|bench|scripts|examples|docs|deploy|drizzle|migrations|patches|packages)\/[\w./-]*$/;

test('every path that a document names exists', () => {
  const missing = readDocuments().flatMap(({ path, codeSpans }) =>
    codeSpans
      .filter((text) => topFolders.test(text) && !existsSync(join(projectRoot, text)))
      .map((text) => `${path}: ${text}`),
  );
  expect(missing).toEqual([]);
});

test('the table of rooms is that of the floors, and says what each room is for', () => {
  const rows = tableAfter(readDocument('docs/architecture.md'), '## Rooms and floors');
  const told = rows.map(([floor, room]) => [/^`src\/(.*?)\/?`$/.exec(room ?? '')?.[1], Number(floor)]);
  // Folders that are to come have a floor before they have files.
  const rooms = Object.entries(floors).filter(([room]) => room === '' || existsSync(join(projectRoot, 'src', room)));
  const real = rooms.map(([room, floor]) => [room === '' ? 'main.ts' : room, floor]);
  const byName = (one: unknown[], other: unknown[]) => String(one[0]).localeCompare(String(other[0]));
  expect<unknown>(told.toSorted(byName)).toEqual(real.toSorted(byName));
  for (const [, , purpose = ''] of rows) expect(purpose).not.toBe('');
});
