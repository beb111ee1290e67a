// The house's rules as failing tests: which way imports point, sizes, names, what is banned, what is documented.
// Each finding names its file and line.

import { describe, expect, test } from 'bun:test';
import { unprovedAttacks } from './support/tidy/attacks.ts';
import { outdatedDocuments, undocumentedWire } from './support/tidy/documented.ts';
import { enginesByRow } from './support/tidy/engines.ts';
import type { Finding, Rule } from './support/tidy/finding.ts';
import { importCycles, importDirection } from './support/tidy/imports.ts';
import {
  fileName,
  fileSize,
  noAny,
  noConsole,
  noEmptyCatch,
  noFocusedTest,
  noMachineNames,
  noNonNull,
  noTypeIgnored,
  nothingLater,
  openingComment,
} from './support/tidy/rules.ts';
import { readSources, sourceFile } from './support/tidy/source-files.ts';

const files = readSources();
const filesByPath = new Map(files.map((file) => [file.path, file]));

function expectNone(findings: readonly Finding[]): void {
  expect(findings.join('\n')).toBe('');
}

const perFile: [string, Rule][] = [
  ['imports point downward, and folders of one floor do not know each other', importDirection],
  ['an engine is known by its row alone', enginesByRow],
  ['files are short', fileSize],
  ['files open with what they are responsible for', openingComment],
  ['files are named in kebab-case', fileName],
  ['no any', noAny],
  ['no non-null assertion outside tests', noNonNull],
  ['no type error is ignored', noTypeIgnored],
  ['nothing is put off', nothingLater],
  ['no console outside programs', noConsole],
  ['no test is skipped or alone', noFocusedTest],
  ['no catch is empty', noEmptyCatch],
  ['no machine or registry is named', noMachineNames],
];

test('the files of the project are found', () => {
  expect(filesByPath.has('src/protocol/codes.ts')).toBe(true);
  expect(filesByPath.has('bun.lock')).toBe(true);
});

test.each(perFile)('%s', (_title, rule) => {
  expectNone(files.flatMap(rule));
});

test('no import cycles', () => {
  expectNone(importCycles(files));
});

describe('documented', () => {
  test('every error code, close code, gap reason and frame type', () => {
    expectNone(undocumentedWire(filesByPath));
  });

  test('every setting and metric, as generated from the code', () => {
    expectNone(outdatedDocuments(filesByPath));
  });

  test('every attack, with a test that is there', () => {
    expectNone(unprovedAttacks(filesByPath));
  });
});

describe('each rule finds what it forbids', () => {
  const opening = '// A sample.\n';
  const forbidden: [string, Rule, string, string][] = [
    ['upward import', importDirection, 'src/core/a.ts', "import { b } from '../sync/b.ts';"],
    ['upward type import', importDirection, 'src/core/a.ts', "import type { B } from '../app/b.ts';"],
    ['sibling import', importDirection, 'src/limits/a.ts', "export { b } from '../metrics/b.ts';"],
    ['several lines', importDirection, 'src/limits/a.ts', "import {\n  type B,\n  c,\n} from '../metrics/b.ts';"],
    ['dynamic import', importDirection, 'src/protocol/a.ts', "await import('../core/b.ts');"],
    ['client on core', importDirection, 'src/client/a.ts', "import { b } from '../core/b.ts';"],
    ['client on a package', importDirection, 'src/client/a.ts', "import pino from 'pino';"],
    ['I/O in core', importDirection, 'src/core/a.ts', "import 'node:fs';"],
    ['out of src', importDirection, 'src/core/a.ts', "import config from '../../realtime.config.ts';"],
    ['unknown folder', importDirection, 'src/utils/a.ts', ''],
    ['folder of an engine', enginesByRow, 'src/app/a.ts', "import { b } from '../sync/redis/b.ts';"],
    ['another engine', enginesByRow, 'src/sync/nats/a.ts', "import { b } from '../redis/b.ts';"],
    ['engine asked for', enginesByRow, 'src/app/a.ts', 'if (a instanceof RedisAdapter) b();'],
    ['engine named', enginesByRow, 'src/app/a.ts', "if (sync === 'memory') b();"],
    ['long file', fileSize, 'src/core/a.ts', 'x\n'.repeat(400)],
    ['camel case', fileName, 'src/core/myFile.ts', ''],
    ['any', noAny, 'src/core/a.ts', 'const a: any = 1;'],
    ['any in brackets', noAny, 'src/core/a.ts', 'const a = new Map<string, any>();'],
    ['cast', noAny, 'src/core/a.ts', 'b(a as any);'],
    ['non-null', noNonNull, 'src/core/a.ts', 'a!.b();'],
    ['non-null index', noNonNull, 'src/core/a.ts', 'const c = a[0]!;'],
    ['ignored', noTypeIgnored, 'src/core/a.ts', '// @ts-ig' + 'nore'],
    ['put off', nothingLater, 'README.md', '- TO' + 'DO: this'],
    ['console', noConsole, 'src/core/a.ts', "console.log('a');"],
    ['skipped', noFocusedTest, 'test/unit/a.test.ts', "test.skip('a', () => {});"],
    ['empty catch', noEmptyCatch, 'src/core/a.ts', 'try { a(); } catch (error) {}'],
    ['empty handler', noEmptyCatch, 'src/core/a.ts', 'a().catch(() => {});'],
    ['path', noMachineNames, 'docs/a.md', 'see /wo' + 'rk/main'],
    ['registry', noMachineNames, 'bun.lock', 'https://registry.npm' + 'js.org/x'],
  ];
  test.each(forbidden)('%s', (_title, rule, path, text) => {
    const findings = rule(sourceFile(path, opening + text));
    expect(findings).toHaveLength(1);
    expect(findings[0]).toMatch(new RegExp(`^${path}:\\d+: `));
  });

  test('a file without an opening comment', () => {
    expect(openingComment(sourceFile('src/core/a.ts', 'export const a = 1;'))).toHaveLength(1);
  });

  test('words about a thing are not the thing', () => {
    const text = [
      '// console.log, any, a!.b',
      "const a = 'as any a!.b console.log';",
      'const b = `${a !== b ? c() : `as any ${d}`} x!.y`;',
      'const e = /[\'"`]a!.b/.test(a) / 2;',
      'if (!a && b != c) return /any!/;',
      'try { a(); } catch { /* why */ }',
      'const many = { any: 1 }; many.any(!a);',
    ].join('\n');
    const file = sourceFile('src/core/a.ts', opening + text);
    expectNone([noAny, noNonNull, noConsole, noEmptyCatch].flatMap((rule) => rule(file)));
  });

  test('a circle of imports, told once', () => {
    const one = sourceFile('src/core/one.ts', "import { two } from './two.ts';");
    const two = sourceFile('src/core/two.ts', "import { one } from './one.ts';");
    const three = sourceFile('src/core/three.ts', "import type { four } from './four.ts';");
    const four = sourceFile('src/core/four.ts', "import type { three } from './three.ts';");
    expect(importCycles([one, two, three, four])).toEqual([
      'import cycle: src/core/one.ts -> src/core/two.ts -> src/core/one.ts',
      'import cycle: src/core/three.ts -> src/core/four.ts -> src/core/three.ts',
    ]);
  });
});
