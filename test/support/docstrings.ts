// What the packages offer, as their source says it: every exported function and class, every public method of theirs, its
// docstring, and the example in it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dir, '../..');

export interface Item {
  readonly file: string;
  readonly name: string;
  readonly docstring: string;
  /** The code after `@example`. */
  readonly example: string | undefined;
}

/** Exported functions and classes; of exported classes the methods that are not marked as parts of the inside. */
function itemsOf(file: string): Item[] {
  const text = readFileSync(join(root, file), 'utf8');
  // What the package's own parts call of each other stands at a class's end.
  const offered = text.replace(/\n {2}\/\/ For (the parts of this package|the channel)\n[^]*?\n}\n/g, '\n}\n');
  const pattern =
    /(\/\*\*(?:[^*]|\*(?!\/))*\*\/)?\n(?:export (?:async )?function (\w+)|export class (\w+)| {2}(?:async )?\*?([a-z]\w*|\[Symbol\.asyncIterator\])(?:<[^]*?>)?\(.*\): .*\{$)/gm;
  return Array.from(offered.matchAll(pattern), ([, docstring = '', ...names]) => ({
    file,
    name: names.find((name) => name !== undefined) ?? '',
    docstring,
    example: exampleOf(docstring),
  }));
}

function exampleOf(docstring: string): string | undefined {
  return docstring
    .split('@example')[1]
    ?.replace(/^ *\*( |\/|$)/gm, '')
    .trim();
}

const files = [
  'packages/client/src/sobranie.ts',
  'packages/client/src/channel.ts',
  'packages/client/src/presence.ts',
  'packages/client/src/live-table.ts',
  'packages/client/src/errors.ts',
  'packages/react/src/index.ts',
  'packages/tanstack-db/src/index.ts',
  'packages/server/src/backend.ts',
  'packages/server/src/errors.ts',
  'packages/server/src/hook.ts',
  'packages/server/src/sql.ts',
  'packages/server/src/token.ts',
  'src/guest/realtime.ts',
  'src/guest/test-server.ts',
];
export const items: readonly Item[] = files.flatMap(itemsOf);
