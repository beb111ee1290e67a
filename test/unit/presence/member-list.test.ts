// A list of members is a map, whatever is done to it, and whichever way it keeps them.
import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { MemberList } from '../../../src/presence/member-list.ts';

test('it holds what a map of the language holds, in the same order', () => {
  const step = fc.record({ key: fc.integer({ min: 0, max: 30 }), value: fc.nat(), isDelete: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const list = new MemberList<{ readonly connection: string; readonly value: number }>();
      const map = new Map<string, number>();
      for (const { key, value, isDelete } of steps) {
        const connection = `c${key}`;
        if (isDelete) expect(list.delete(connection)).toBe(map.delete(connection));
        else {
          list.set({ connection, value });
          map.set(connection, value);
        }
        expect(list.size).toBe(map.size);
        expect(Array.from(list.values(), (member) => [member.connection, member.value] as const)).toEqual([...map]);
        expect(list.get(connection)?.value).toBe(map.get(connection));
        expect(list.has(connection)).toBe(map.has(connection));
      }
    }),
  );
});
