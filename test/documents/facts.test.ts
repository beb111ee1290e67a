// What the documents state is so: each path in them exists, rooms and floors are those by which imports are checked,
// packages are those of package.json, limits are the defaults of their settings.

import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { engines } from '../../src/app/engines.ts';
import { allSettings } from '../../src/settings/table.ts';
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

test('every package that the project depends on is listed with its reason', async () => {
  const { dependencies, devDependencies } = (await Bun.file(join(projectRoot, 'package.json')).json()) as Record<
    'dependencies' | 'devDependencies',
    Record<string, string>
  >;
  const { text } = readDocument('CONTRIBUTING.md');
  const items = Array.from(
    text.slice(text.indexOf('## Dependencies')).matchAll(/^- (.+?): (?=\S)/gm),
    ([, names = '']) => names,
  );
  const listed = items.flatMap((names) => Array.from(names.matchAll(/`([^`]+)`/g), (match) => match[1] ?? ''));
  expect(listed.toSorted()).toEqual(Object.keys({ ...dependencies, ...devDependencies }).toSorted());
});

test('limits that a setting sets are shown with its default', () => {
  const rows = tableAfter(readDocument('docs/limits.md'), '# Limits');
  const defaults = new Map(allSettings(engines).map((setting) => [setting.name, setting.default]));
  const units: Readonly<Record<string, number>> = { KiB: 1_024, MiB: 1_024 ** 2 };
  let compared = 0;
  for (const [what = '', limit = '', setBy = ''] of rows) {
    const name = /^`([A-Z_]+)`/.exec(setBy)?.[1];
    if (name === undefined) continue;
    expect(defaults.has(name), what).toBe(true);
    const [, digits, unit = ''] = /^([\d,]+)(?: (KiB|MiB))?/.exec(limit) ?? ['', limit === 'none' ? '0' : undefined];
    if (digits === undefined) continue;
    expect(String(Number(digits.replaceAll(',', '')) * (units[unit] ?? 1)), what).toBe(defaults.get(name) ?? '');
    compared++;
  }
  expect(compared).toBeGreaterThan(10);
});

// A step that the code no longer takes that way must not stay, and a way may become shorter without a word, not longer.
describe('docs/architecture.md: each way through the code', () => {
  const { text } = readDocument('docs/architecture.md');
  test.each([
    ['## The way of a row', 18, 17],
    ['## The way of a subscribe with a position', 22, 13],
    ['## The way of an HTTP publish over Redis', 18, 15],
  ])('%s: at most %d steps in %d files, each there', (heading, stepsMax, filesMax) => {
    const start = text.indexOf(`${heading}\n`);
    expect(start).toBeGreaterThan(-1);
    const end = text.indexOf('\n## ', start);
    const section = text.slice(start, end === -1 ? undefined : end);
    const steps = Array.from(section.matchAll(/^\d+\. `([^`]+)` `([^`]+)`/gm), ([, file = '', name = '']) => ({
      file,
      name,
    }));
    expect(Array.from(section.matchAll(/^\d+\. /gm))).toHaveLength(steps.length);
    for (const { file, name } of steps) {
      expect(existsSync(join(projectRoot, file)), file).toBe(true);
      const word = new RegExp(`(?<![\\w#])${RegExp.escape(name)}(?!\\w)`);
      expect(word.test(readFileSync(join(projectRoot, file), 'utf8')), `${file}: ${name}`).toBe(true);
    }
    expect(steps.length).toBeGreaterThan(10);
    expect(steps.length).toBeLessThanOrEqual(stepsMax);
    expect(new Set(steps.map(({ file }) => file)).size).toBeLessThanOrEqual(filesMax);
  });
});
