// A small map is a map, whatever is done to it, and whichever way it keeps its entries.
import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { SmallMap } from '../../../src/presence/small-map.ts';

test('it holds what a map of the language holds, in the same order', () => {
  const step = fc.record({ key: fc.integer({ min: 0, max: 30 }), value: fc.nat(), isDelete: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const [small, map] = [new SmallMap<number, number>(), new Map<number, number>()];
      for (const { key, value, isDelete } of steps) {
        if (isDelete) expect(small.delete(key)).toBe(map.delete(key));
        else {
          small.set(key, value);
          map.set(key, value);
        }
        expect(small.size).toBe(map.size);
        expect([...small.entries()]).toEqual([...map]);
        expect([small.get(key), small.has(key)]).toEqual([map.get(key), map.has(key)]);
      }
      expect([[...small.keys()], [...small.values()]]).toEqual([[...map.keys()], [...map.values()]]);
    }),
  );
});
