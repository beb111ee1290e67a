// Every fault of the sources of a configuration is told at once, by the name of what is wrong.

import { expect, test } from 'bun:test';
import { configFaults } from '../../../src/rules/faults.ts';
import type { RealtimeConfig } from '../../../src/rules/config.ts';

const channel = 'a';

test.each<[unknown, string | undefined]>([
  [[{ redisStream: { key: 'k', channel } }, { nats: { stream: 's', channel: () => 'a' } }], undefined],
  [{}, 'sources: is not a list'],
  [['kafka'], 'sources[0]: is not an object'],
  [[{}], 'sources[0]: an empty object is not one of kafka, rabbitmq, nats, redisStream'],
  [[{ redis: { key: 'k', channel } }], 'sources[0]: redis is not one of kafka, rabbitmq, nats, redisStream'],
  [
    [{ kafka: { topic: 't', channel }, nats: { stream: 's', channel } }],
    'sources[0]: kafka, nats is not one of kafka, rabbitmq, nats, redisStream',
  ],
  [[{ kafka: 'topic' }], 'sources[0].kafka: is not an object'],
  [[{ kafka: { channel } }], 'sources[0].kafka: `topic` is missing: what to read'],
  [[{ nats: { channel } }], 'sources[0].nats: `stream` or `subject` is missing: what to read'],
  [[{ rabbitmq: { queue: '', channel } }], 'sources[0].rabbitmq.queue: "" is not a text'],
  [
    [{ rabbitmq: { queue: 'q', channel, from: 'end' } }],
    'sources[0].rabbitmq.from: there is no such member; known are queue, name, channel, data, url',
  ],
  [[{ redisStream: { key: 'k' } }], 'sources[0].redisStream: `channel` is missing: where messages are published'],
  [
    [{ redisStream: { key: 'k', channel: 'a b' } }],
    'sources[0].redisStream.channel: "a b" is neither a channel nor a function',
  ],
  [
    [{ redisStream: { key: 'k', channel: '$nodes' } }],
    'sources[0].redisStream.channel: "$nodes" is neither a channel nor a function',
  ],
  [[{ redisStream: { key: 'k', channel, data: {} } }], 'sources[0].redisStream.data: is not a function'],
  [[{ nats: { stream: 's', channel, from: 'now' } }], "sources[0].nats.from: \"now\" is neither 'start' nor 'end'"],
  [[{ nats: { stream: 's', channel, url: 7 } }], 'sources[0].nats.url: the value (not shown) is not a text'],
  [
    [{ nats: { stream: 's', channel, name: 'x'.repeat(129) } }],
    'sources[0].nats.name: it has more than 128 characters',
  ],
  [
    [{ redisStream: { key: 'k', channel } }, { redisStream: { key: 'k', channel } }],
    'sources[1]: its name is "redisStream:k", as that of sources[0]: give one of them another `name`',
  ],
  [
    Array.from({ length: 101 }, (_, place) => ({ kafka: { topic: `t${place}`, channel } })),
    'sources: there are more than 100',
  ],
])('%#', (sources, fault) => {
  const config = { rules: [{ channels: '*' }], sources } as unknown as RealtimeConfig;
  expect(configFaults(config)).toEqual(fault === undefined ? [] : [fault]);
});
