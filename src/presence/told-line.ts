// How a change travels between a store and its nodes where both are made of text: kind, version, connection, the
// connection that left or `-`, and the member.

import type { Told } from './store.ts';

const kinds: Readonly<Record<string, Told['kind']>> = { join: 'join', update: 'update', leave: 'leave' };

/** Throws when it is no such line. */
export function readTold(line: string): Told {
  const words = line.split(' ', 4);
  const [kind = '', version = '', connection = '', left = '-'] = words;
  const known = kinds[kind];
  if (known === undefined) throw new Error('a line is no change of presence');
  return {
    kind: known,
    version: Number(version),
    connection,
    member: line.slice(words.join(' ').length + 1),
    left: left === '-' ? undefined : left,
  };
}
