// Frames from clients: each fault has its telling error, and nothing that a socket can carry makes the decoder throw.

import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { isChannelName } from '../../../src/protocol/channel.ts';
import { decodeCommand, isRefused, type Command, type RefusedCommand } from '../../../src/protocol/commands.ts';

function decode(frame: unknown): Command | RefusedCommand {
  return decodeCommand(JSON.stringify(frame));
}

function refusal(decoded: Command | RefusedCommand): {
  code: string;
  message: string;
  id?: unknown;
  channel?: unknown;
} {
  if (!isRefused(decoded)) throw new Error(`accepted: ${JSON.stringify(decoded)}`);
  const { error, id, channel } = decoded;
  return { code: error.code, message: error.message, id, channel };
}

describe('accepted', () => {
  const accepted: [string, unknown, unknown][] = [
    ['ping', { type: 'ping' }, { type: 'ping' }],
    ['an id of 0', { type: 'ping', id: 0 }, { type: 'ping', id: 0 }],
    ['an empty id', { type: 'ping', id: '' }, { type: 'ping', id: '' }],
    ['a null id is none', { type: 'ping', id: null }, { type: 'ping' }],
    ['unknown members', { type: 'ping', extra: { deep: [1] } }, { type: 'ping' }],
    ['subscribe', { type: 'subscribe', channel: 'a' }, { type: 'subscribe', channels: [{ channel: 'a' }] }],
    [
      'since',
      { type: 'subscribe', channel: 'a', since: { epoch: 'e', offset: 0, more: 1 } },
      { type: 'subscribe', channels: [{ channel: 'a', since: { epoch: 'e', offset: 0, more: 1 } }] },
    ],
    [
      'since null is none',
      { type: 'subscribe', channel: 'a', since: null },
      { type: 'subscribe', channels: [{ channel: 'a' }] },
    ],
    [
      'several channels',
      { type: 'subscribe', id: 7, channels: [{ channel: 'a' }, { channel: 'b', since: { epoch: 'e', offset: 3 } }] },
      { type: 'subscribe', id: 7, channels: [{ channel: 'a' }, { channel: 'b', since: { epoch: 'e', offset: 3 } }] },
    ],
    [
      'channels null is none',
      { type: 'subscribe', channel: 'a', channels: null },
      { type: 'subscribe', channels: [{ channel: 'a' }] },
    ],
    [
      'channel null beside channels is none',
      { type: 'subscribe', channel: null, channels: [{ channel: 'a' }] },
      { type: 'subscribe', channels: [{ channel: 'a' }] },
    ],
    ['unsubscribe', { type: 'unsubscribe', channel: '$a' }, { type: 'unsubscribe', channel: '$a' }],
    [
      'publish',
      { type: 'publish', channel: 'a', data: { x: [1, null] } },
      { type: 'publish', channel: 'a', data: '{"x":[1,null]}', echo: true },
    ],
    [
      'publish of null with a key and no echo',
      { type: 'publish', channel: 'a', data: null, key: 'k', echo: false },
      { type: 'publish', channel: 'a', data: 'null', key: 'k', echo: false },
    ],
    [
      'publish with members that are null',
      { type: 'publish', channel: 'a', data: 1, key: null, echo: null, to: null },
      { type: 'publish', channel: 'a', data: '1', echo: true },
    ],
    ['history', { type: 'history', channel: 'a' }, { type: 'history', channel: 'a', limit: 100 }],
    ['history limit', { type: 'history', channel: 'a', limit: 1_000 }, { type: 'history', channel: 'a', limit: 1_000 }],
    ['presence', { type: 'presence', channel: 'a' }, { type: 'presence', channel: 'a', limit: 1_000 }],
    [
      'presence with data, whatever it is called',
      { type: 'presence', channel: 'a', data: { ['__proto__']: 1, x: '\n' }, limit: 0 },
      { type: 'presence', channel: 'a', data: '{"__proto__":1,"x":"\\n"}', limit: 0 },
    ],
    [
      'subscribe with presence',
      { type: 'subscribe', channel: 'a', presence: true },
      { type: 'subscribe', channels: [{ channel: 'a', presence: 'null' }] },
    ],
    [
      'subscribe with data for presence',
      {
        type: 'subscribe',
        channels: [
          { channel: 'a', presence: { x: 1 } },
          { channel: 'b', presence: false },
        ],
      },
      { type: 'subscribe', channels: [{ channel: 'a', presence: '{"x":1}' }, { channel: 'b' }] },
    ],
    [
      'publish to one connection',
      { type: 'publish', channel: 'a', data: 1, to: 'c1' },
      { type: 'publish', channel: 'a', data: '1', echo: true, to: 'c1' },
    ],
    ['refresh', { type: 'refresh', token: 't' }, { type: 'refresh', token: 't' }],
  ];
  test.each(accepted)('%s', (_title, frame, command) => {
    expect(JSON.parse(JSON.stringify(decode(frame)))).toEqual(command);
  });
});

test('of several channels each malformed one brings its own error, with its name', () => {
  const channels = [{ channel: 'a b' }, { channel: 'a', since: 5 }, { channel: 'b' }, {}, null, 'c', { channel: 5 }];
  const decoded = decode({ type: 'subscribe', id: 7, channels });
  if (isRefused(decoded) || decoded.type !== 'subscribe') throw new Error('no subscribe');
  const told: unknown = decoded.channels.map((each) =>
    isRefused(each) ? [each.error.code, each.id, each.channel] : each.channel,
  );
  expect(told).toEqual([
    ['bad_channel', 7, 'a b'],
    ['bad_request', 7, 'a'],
    'b',
    ['bad_channel', 7, undefined],
    ['bad_request', 7, undefined],
    ['bad_request', 7, undefined],
    ['bad_channel', 7, undefined],
  ]);
});

// Only one of several channels was named; a client that had sent one alone could not tell which of its channels it was.
test('a malformed name is repeated by the error, whatever the command', () => {
  for (const type of ['subscribe', 'unsubscribe', 'publish', 'history', 'presence']) {
    for (const [channel, told] of [
      ['a b', 'a b'],
      ['', ''],
      [5, undefined],
      [undefined, undefined],
    ]) {
      const decoded = decode({ type, id: 7, channel, data: 1 });
      expect(isRefused(decoded) && [decoded.error.code, decoded.id, decoded.channel]).toEqual(['bad_channel', 7, told]);
    }
  }
});

describe('refused', () => {
  const channelText = 'A channel is 1 to 256 characters of A-Z a-z 0-9 _ . : - @ / and %XX';
  const sinceText = '"since" is {epoch: string, offset: whole number from 0}.';
  const channelsText = '"channels" is a list of 1 to 1000 objects {channel, since?, presence?, snapshot?}.';
  const limitText = '"limit" is a whole number from 1 to 1000.';
  const idText = '"id" is an integer, or a string of at most 64 characters.';
  const keyText = '"key" is not a text of 1 to 64 characters without NUL or broken UTF-8.';
  const since = (value: unknown) => ({ type: 'subscribe', channel: 'a', since: value });
  const refused: [string, unknown, string, string | undefined][] = [
    ['a list', [], 'bad_frame', 'The frame is not a JSON object.'],
    ['a string', 'ping', 'bad_frame', 'The frame is not a JSON object.'],
    ['null', null, 'bad_frame', 'The frame is not a JSON object.'],
    ['no type', {}, 'unknown_command', '"type" is missing.'],
    ['a type of no word', { type: 7 }, 'unknown_command', '"type" is missing.'],
    ['an unknown type', { type: 'shout' }, 'unknown_command', 'This command type is not known.'],
    ['a reply’s type', { type: 'message' }, 'unknown_command', undefined],
    ['a type of the language', { type: 'constructor' }, 'unknown_command', undefined],
    ['an id of half', { type: 'ping', id: 0.5 }, 'bad_request', idText],
    ['an id of true', { type: 'ping', id: true }, 'bad_request', idText],
    ['an id that is no safe integer', { type: 'ping', id: 2 ** 53 }, 'bad_request', idText],
    ['a long id', { type: 'ping', id: 'x'.repeat(65) }, 'bad_request', idText],
    ['no channel', { type: 'subscribe' }, 'bad_channel', channelText],
    ['an empty channel', { type: 'subscribe', channel: '' }, 'bad_channel', channelText],
    ['a long channel', { type: 'publish', channel: 'x'.repeat(257), data: 1 }, 'bad_channel', channelText],
    ['a channel with a space', { type: 'history', channel: 'a b' }, 'bad_channel', channelText],
    ['a channel that breaks lines', { type: 'unsubscribe', channel: 'a\n' }, 'bad_channel', channelText],
    ['a channel of several', { type: 'subscribe', channel: ['a'] }, 'bad_channel', channelText],
    ['a dollar alone', { type: 'subscribe', channel: '$' }, 'bad_channel', channelText],
    ['channels of no list', { type: 'subscribe', channels: 'a,b' }, 'bad_request', channelsText],
    ['no channels', { type: 'subscribe', channels: [] }, 'bad_request', channelsText],
    [
      'too many channels',
      { type: 'subscribe', channels: Array.from({ length: 1_001 }, () => ({ channel: 'a' })) },
      'bad_request',
      channelsText,
    ],
    [
      'one channel and several',
      { type: 'subscribe', channel: 'a', channels: [{ channel: 'b' }] },
      'bad_request',
      'Give either "channel" or "channels".',
    ],
    ['since of a number', since(5), 'bad_request', sinceText],
    ['since of a list', since([]), 'bad_request', sinceText],
    ['since without epoch', since({ offset: 1 }), 'bad_request', sinceText],
    ['since with a long epoch', since({ epoch: 'x'.repeat(65), offset: 1 }), 'bad_request', sinceText],
    ['since before 0', since({ epoch: 'e', offset: -1 }), 'bad_request', sinceText],
    ['since of half', since({ epoch: 'e', offset: 1.5 }), 'bad_request', sinceText],
    ['since as text', since({ epoch: 'e', offset: '1' }), 'bad_request', sinceText],
    ['no data', { type: 'publish', channel: 'a' }, 'bad_request', '"data" is missing.'],
    ['echo as text', { type: 'publish', channel: 'a', data: 1, echo: 'no' }, 'bad_request', '"echo" is true or false.'],
    ['an empty key', { type: 'publish', channel: 'a', data: 1, key: '' }, 'bad_request', keyText],
    ['a long key', { type: 'publish', channel: 'a', data: 1, key: 'x'.repeat(65) }, 'bad_request', keyText],
    ['a key with NUL', { type: 'publish', channel: 'a', data: 1, key: 'a\u0000' }, 'bad_request', keyText],
    ['a key of a number', { type: 'publish', channel: 'a', data: 1, key: 1 }, 'bad_request', keyText],
    ['a limit of 0', { type: 'history', channel: 'a', limit: 0 }, 'bad_request', limitText],
    ['a limit too high', { type: 'history', channel: 'a', limit: 1_001 }, 'bad_request', limitText],
    ['a limit as text', { type: 'history', channel: 'a', limit: '5' }, 'bad_request', limitText],
    ['a limit of half', { type: 'presence', channel: 'a', limit: 0.5 }, 'bad_request', undefined],
    ['a limit of more members', { type: 'presence', channel: 'a', limit: 10_001 }, 'bad_request', undefined],
    ['a connection of no id', { type: 'publish', channel: 'a', data: 1, to: 'not one' }, 'bad_request', undefined],
    ['a connection of a number', { type: 'publish', channel: 'a', data: 1, to: 5 }, 'bad_request', undefined],
    ['no token', { type: 'refresh' }, 'bad_request', '"token" is a non-empty string.'],
    ['an empty token', { type: 'refresh', token: '' }, 'bad_request', '"token" is a non-empty string.'],
  ];
  test.each(refused)('%s', (_title, frame, code, message) => {
    const found = refusal(decode(frame));
    expect(found.code).toBe(code);
    if (message !== undefined) expect(found.message).toBe(message);
  });

  test('what is no JSON', () => {
    for (const text of ['', ' ', '{', '{"type":"ping"', "{'type':'ping'}", 'undefined', '\u0000', '\ud800', '{}{}']) {
      expect(refusal(decodeCommand(text))).toMatchObject({
        code: 'bad_frame',
        message: 'The frame is not valid JSON.',
      });
    }
  });

  test('the reply can be told apart: id and channel come back as far as they are known', () => {
    expect(refusal(decode({ type: 'publish', id: 5, channel: 'a' }))).toMatchObject({ id: 5, channel: 'a' });
    expect(refusal(decode({ type: 'publish', id: 'p', channel: '?' }))).toMatchObject({ id: 'p', channel: '?' });
    expect(refusal(decode({ type: 'nonsense', id: 5 }))).toMatchObject({ id: 5 });
    expect(refusal(decode({ type: 'ping', id: {} })).id).toBeUndefined();
  });
});

test('names that every object has are names like any other', () => {
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__']) {
    const text = `{"type":"publish","channel":"${name}","key":"${name}","id":"${name}","data":{"${name}":1}}`;
    expect(decodeCommand(text)).toMatchObject({ channel: name, key: name, id: name, data: `{"${name}":1}` });
    expect(refusal(decodeCommand(`{"${name}":{"type":"ping"}}`)).code).toBe('unknown_command');
    expect(refusal(decodeCommand(`{"type":"publish","channel":"a","${name}":{"data":1}}`)).message).toBe(
      '"data" is missing.',
    );
  }
});

// Printing deep data again took the square of its depth: one frame of brackets held up the process for half a second.
test('nesting of any depth is an answer at once, never a crash', () => {
  const before = process.cpuUsage();
  for (const [open, close] of [
    ['[', ']'],
    ['{"a":', '}'],
  ] as const) {
    for (const depth of [10_000, 30_000, 100_000]) {
      const data = `${open.repeat(depth)}1${close.repeat(depth)}`;
      const deep = decodeCommand(`{"type":"publish","id":1,"channel":"a","data":${data}}`);
      const message = 'The frame is nested more than 1000 deep.';
      expect(refusal(deep)).toEqual({ code: 'bad_request', message, id: 1, channel: 'a' });
      expect(refusal(decodeCommand(open.repeat(depth))).code).toBe('bad_frame');
      expect(refusal(decodeCommand(close.repeat(depth))).code).toBe('bad_frame');
      expect(decodeCommand(`{"type":"ping","ignored":${data}}`)).toEqual({ type: 'ping', id: undefined });
    }
    const data = `${open.repeat(999)}1${close.repeat(999)}`;
    expect(decodeCommand(`{"type":"publish","channel":"a","data":${data}}`)).toMatchObject({ data });
  }
  // The processor's time: the clock would measure what else the machine does.
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1_000).toBeLessThan(1_000);
});

test('brackets in texts are no nesting', () => {
  const data = `${'[{'.repeat(5_000)}\\"${'[\\'.repeat(3_000)}`;
  expect(decode({ type: 'publish', channel: 'a', data })).toMatchObject({ data: JSON.stringify(data) });
});

test('64 KiB of data is carried whole', () => {
  const data = 'é'.repeat(32_000);
  expect(decode({ type: 'publish', channel: 'a', data })).toMatchObject({ data: JSON.stringify(data) });
});

const valid = fc.oneof(
  fc.record(
    {
      type: fc.constantFrom('subscribe', 'unsubscribe', 'publish', 'history', 'presence', 'refresh', 'ping'),
      id: fc.oneof(fc.maxSafeInteger(), fc.string({ maxLength: 64 })),
      channel: fc.stringMatching(/^\$?(?:[A-Za-z0-9_.:\-@/]|%[0-9A-F]{2}){1,40}$/),
      data: fc.jsonValue(),
      since: fc.record({ epoch: fc.string({ maxLength: 64 }), offset: fc.maxSafeNat() }),
      limit: fc.integer({ min: 1, max: 1_000 }),
      key: fc.stringMatching(/^[a-z]{1,64}$/),
      echo: fc.boolean(),
      token: fc.string({ minLength: 1 }),
    },
    { requiredKeys: ['type', 'channel', 'data', 'token'] },
  ),
);

test('every well-formed frame is accepted, and its data means what it meant', () => {
  fc.assert(
    fc.property(valid, (frame) => {
      const decoded = decode(frame);
      if (isRefused(decoded)) throw decoded.error;
      expect(decoded.type).toBe(frame.type);
      expect(decoded.id).toBe(frame.id);
      if (decoded.type !== 'publish') return;
      expect(decoded.data).toBe(JSON.stringify(frame.data));
      expect(decoded.data).not.toMatch(/[\n\r]/);
    }),
    { numRuns: 2_000 },
  );
});

/** Whatever comes out is either an error with a code, or a command whose fields can be relied on. */
function hold(text: string): void {
  const decoded = decodeCommand(text);
  if (isRefused(decoded)) {
    expect(['bad_frame', 'unknown_command', 'bad_request', 'bad_channel']).toContain(decoded.error.code);
    expect(decoded.error.message).not.toBe('');
    return;
  }
  if (decoded.type === 'subscribe') expect(decoded.channels.length).toBeGreaterThan(0);
  if ('channel' in decoded) expect(isChannelName(decoded.channel)).toBe(true);
  if (decoded.type === 'publish') JSON.parse(decoded.data);
  const { id } = decoded;
  expect(id === undefined || Number.isSafeInteger(id) || (typeof id === 'string' && id.length <= 64)).toBe(true);
}

test('random text, random JSON and damaged frames never throw', () => {
  const damaged = fc
    .tuple(valid, fc.nat(), fc.nat(30), fc.string({ unit: 'binary', maxLength: 8 }))
    .map(([frame, at, cut, insert]) => {
      const text = JSON.stringify(frame);
      const start = at % (text.length + 1);
      return text.slice(0, start) + insert + text.slice(start + cut);
    });
  const members = fc.constantFrom('type', 'id', 'channel', 'channels', 'data', 'since', 'key', 'limit', '__proto__');
  const odd = fc.dictionary(members, fc.oneof(fc.jsonValue(), fc.constantFrom('publish', 'subscribe', 'history', 'a')));
  const texts = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.json(),
    damaged,
    odd.map((frame) => JSON.stringify(frame)),
  );
  fc.assert(fc.property(texts, hold), { numRuns: 10_000 });
});
