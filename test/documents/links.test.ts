// Every link of every document leads somewhere, and every document can be reached from the README.

import { expect, test } from 'bun:test';
import { existsSync, statSync } from 'node:fs';
import { join, posix } from 'node:path';
import { readDocuments } from '../support/documents.ts';
import { projectRoot } from '../support/tidy/source-files.ts';

const documents = readDocuments();
const byPath = new Map(documents.map((document) => [document.path, document]));

function resolve(path: string, target: string): { readonly file: string; readonly anchor: string | undefined } {
  const [file = '', anchor] = target.split('#');
  return { file: file === '' ? path : posix.join(posix.dirname(path), file), anchor };
}

function isRelative(target: string): boolean {
  return !/^[a-z]+:/.test(target);
}

function fault(path: string, target: string): string | undefined {
  const { file, anchor } = resolve(path, target);
  if (file.startsWith('..') || !existsSync(join(projectRoot, file))) return 'there is no such file';
  if (anchor === undefined) return undefined;
  return byPath.get(file)?.anchors.has(anchor) === true ? undefined : 'there is no such heading';
}

test('every relative link leads to a file, and its anchor to a heading', () => {
  const faults = documents.flatMap(({ path, targets }) =>
    targets.filter(isRelative).flatMap((target) => {
      const found = fault(path, target);
      return found === undefined ? [] : [`${path}: ${target}: ${found}`];
    }),
  );
  expect(faults.join('\n')).toBe('');
});

test('every document is reached from the README by links', () => {
  const reached = new Set(['README.md']);
  for (const path of reached) {
    for (const target of byPath.get(path)?.targets.filter(isRelative) ?? []) {
      const { file } = resolve(path, target);
      if (byPath.has(file)) reached.add(file);
    }
  }
  expect(documents.map(({ path }) => path).filter((path) => !reached.has(path))).toEqual([]);
});

test('the README is short, and its pictures are small', () => {
  const readme = byPath.get('README.md');
  expect(readme?.text.trimEnd().split('\n').length).toBeLessThanOrEqual(200);
  const pictures = documents.flatMap(({ path, targets }) =>
    targets.filter((target) => /\.(png|jpe?g|gif|svg)$/.test(target)).map((target) => resolve(path, target).file),
  );
  expect(pictures.length).toBeGreaterThan(0);
  for (const picture of pictures) expect(statSync(join(projectRoot, picture)).size).toBeLessThan(200_000);
});
