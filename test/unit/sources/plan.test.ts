// What becomes of a message, whatever the functions of a source do.

import { describe, expect, test } from 'bun:test';
import type { NamedSource, RedisStreamSource } from '../../../src/rules/source-config.ts';
import { planOf } from '../../../src/sources/plan.ts';
import type { RawMessage } from '../../../src/sources/source.ts';

const max = 1_000;

function source(options: Omit<RedisStreamSource, 'key'>): NamedSource {
  return { kind: 'redisStream', name: 'orders', options: { key: 'orders', ...options } };
}

function message(body: string | Uint8Array, more: Partial<RawMessage> = {}): RawMessage {
  return { topic: 'orders', key: null, headers: {}, body, at: undefined, position: '7', ...more };
}

test('the body is published as it stands, on one line, with numbers that JavaScript would round', () => {
  const plan = planOf(source({ channel: 'a' }), '0', [message('{"n":\n12345678901234567890}')], max);
  expect(plan).toEqual({
    entries: [{ channel: 'a', data: '{"n": 12345678901234567890}' }],
    parked: [],
    published: 1,
    skipped: 0,
  });
});

test('the functions see all of the message, and the body is parsed when it is asked for', () => {
  const raw = message('not JSON', { key: 'k', headers: { h: '1' }, at: 5 });
  const seen: unknown[] = [];
  const options = source({
    channel: ({ source: name, partition, topic, key, headers, text, at }) => {
      seen.push([name, partition, topic, key, headers, text, at]);
      return ['a', 'b', 'a'];
    },
    data: ({ text }) => ({ text }),
  });
  const { entries } = planOf(options, '3', [raw], max);
  expect(seen).toEqual([['orders', '3', 'orders', 'k', { h: '1' }, 'not JSON', 5]]);
  expect(entries).toEqual(['a', 'b'].map((channel) => ({ channel, data: '{"text":"not JSON"}' })));
});

test('no channel leaves a message out, whatever its body', () => {
  for (const answer of [null, undefined, []]) {
    const plan = planOf(source({ channel: () => answer }), '0', [message('not JSON')], max);
    expect(plan).toEqual({ entries: [], parked: [], published: 0, skipped: 1 });
  }
});

const cycle: Record<string, unknown> = {};
cycle['self'] = cycle;

describe('a message is parked, and those around it are published', () => {
  test.each<[string, Omit<RedisStreamSource, 'key'>, string | Uint8Array, string]>([
    ['no JSON', { channel: 'a' }, '{', 'the body is not JSON'],
    ['empty', { channel: 'a' }, '', 'the body is not JSON'],
    ['no UTF-8', { channel: 'a' }, new Uint8Array([0x22, 0xc3, 0x22]), 'the body is not UTF-8'],
    ['too large', { channel: 'a' }, JSON.stringify('é'.repeat(max / 2)), 'larger than 1000 bytes'],
    ['too deep', { channel: 'a', data: () => deep() }, '1', 'nested more than 1000 deep'],
    ['a channel of the server', { channel: () => '$nodes' }, '1', '"$nodes" is not a channel'],
    ['a channel that is none', { channel: () => 'a b' }, '1', '"a b" is not a channel'],
    ['a number', { channel: () => 7 as unknown as string }, '1', 'it answered a number'],
    ['many channels', { channel: () => Array.from({ length: 101 }, String) }, '1', 'more than 100'],
    ['undefined', { channel: 'a', data: () => undefined }, '1', 'nothing that is JSON'],
    ['a circle', { channel: 'a', data: () => cycle }, '1', 'data: '],
    ['a bigint', { channel: 'a', data: () => 1n }, '1', 'data: '],
    ['a promise of data', { channel: 'a', data: () => Promise.resolve(1) }, '1', 'it answered a promise'],
    ['thrown text', { channel: thrower('no') }, '1', 'channel: no'],
    ['thrown without a word', { channel: thrower(Object.create(null)) }, '1', 'something that is no error'],
  ])('%s', (_name, options, body, error) => {
    const plan = planOf(source(options), '0', [message(body)], max);
    expect(plan).toMatchObject({ entries: [], published: 0, skipped: 0 });
    expect(plan.parked).toHaveLength(1);
    expect(plan.parked[0]!.error).toStartWith('source orders, partition 0, position 7: ');
    expect(plan.parked[0]!.error).toContain(error);
    expect(plan.parked[0]!.body).toEqual(typeof body === 'string' ? new TextEncoder().encode(body) : body);
  });

  test('in the midst of others', () => {
    const plan = planOf(
      source({ channel: 'a' }),
      '0',
      ['1', '{', '2'].map((body) => message(body)),
      max,
    );
    expect(plan.entries.map(({ data }) => data)).toEqual(['1', '2']);
    expect(plan).toMatchObject({ published: 2, skipped: 0, parked: [{ channel: 'a' }] });
  });
});

function deep(): unknown {
  let value: unknown = 1;
  for (let depth = 0; depth < 2_100; depth++) value = [value];
  return value;
}

function thrower(thrown: unknown): () => never {
  return () => {
    throw thrown;
  };
}
