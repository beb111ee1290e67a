// Nodes that another bus than this node's carries are found by what they show through the database, and not before it is
// sure that they are not merely late.

import { expect, test } from 'bun:test';
import { numbered, unnumbered } from '../../../src/sync/postgres/envelope.ts';
import { FarNodes } from '../../../src/sync/postgres/far-nodes.ts';
import { HandClock } from '../../support/hub.ts';

function open(): { far: FarNodes; told: number[]; pass: (ms: number) => void } {
  const clock = new HandClock();
  const told: number[] = [];
  const far = new FarNodes({ clock, changed: (count) => told.push(count) });
  return { far, told, pass: (ms) => clock.advance(ms) };
}

test('who is heard on the bus is near, whatever the database brings', () => {
  const { far, told, pass } = open();
  for (let second = 0; second < 60; second++) {
    pass(1_000);
    far.heardOnBus('a');
    far.heardByDatabase('a');
  }
  expect([far.any, told]).toEqual([false, []]);
});

test('who is heard by the database alone is far after four seconds, and told of when it stays so', () => {
  const { far, told, pass } = open();
  far.heardByDatabase('a');
  expect(far.any).toBe(false);
  pass(5_000);
  far.heardByDatabase('a');
  expect([far.any, told]).toEqual([true, []]);
  for (let times = 0; times < 3; times++) {
    pass(3_000);
    far.heardByDatabase('a');
  }
  expect([far.any, told]).toEqual([true, [1]]);
  far.heardOnBus('a');
  expect([far.any, told]).toEqual([false, [1, 0]]);
});

test('a node that ended is neither: it is forgotten, near or far', () => {
  const { far, told, pass } = open();
  far.heardOnBus('near');
  pass(5_000);
  for (let times = 0; times < 3; times++) far.heardByDatabase('gone');
  expect([far.any, told]).toEqual([true, [1]]);
  pass(13_000);
  expect(far.any).toBe(false);
  far.heardOnBus('other');
  far.heardByDatabase('other');
  expect([far.any, told]).toEqual([false, [1, 0]]);
});

test('an envelope with a number is the same envelope; one without it passes as it is', () => {
  const text = '{"channel":"a"}\n"#1 2"\n';
  expect(unnumbered(numbered('node', 7, text))).toEqual({ envelope: text, from: { sender: 'node', number: 7 } });
  for (const plain of [text, '!channel\nepoch', '']) expect(unnumbered(plain)).toEqual({ envelope: plain });
});
