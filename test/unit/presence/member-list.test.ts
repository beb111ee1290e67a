// A list of members is a map, whatever is done to it, and whichever way it keeps them.
import { expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  memberOf,
  membersOf,
  sizeOf,
  withMember,
  withoutMember,
  type MemberList,
} from '../../../src/presence/member-list.ts';

test('it holds what a map of the language holds, in the same order', () => {
  const step = fc.record({ key: fc.integer({ min: 0, max: 30 }), value: fc.nat(), isDelete: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      let list: MemberList<{ readonly connection: string; readonly value: number }>;
      const map = new Map<string, number>();
      for (const { key, value, isDelete } of steps) {
        const connection = `c${key}`;
        if (isDelete) {
          list = withoutMember(list, connection);
          map.delete(connection);
        } else {
          list = withMember(list, { connection, value });
          map.set(connection, value);
        }
        expect(sizeOf(list)).toBe(map.size);
        expect(Array.from(membersOf(list), (member) => [member.connection, member.value] as const)).toEqual([...map]);
        expect(memberOf(list, connection)?.value).toBe(map.get(connection));
        expect(list === undefined).toBe(map.size === 0);
      }
    }),
  );
});
