// Spliced frames are the JSON that their objects would be, whatever stands in them.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  encodeFrame,
  historyFrame,
  messageFrame,
  messageFrameAround,
  publishedFrame,
  type MessageFrame,
} from '../../../src/protocol/frames.ts';
import { Publication } from '../../../src/core/publication.ts';

const channel = fc.stringMatching(/^\$?[A-Za-z0-9_.:\-@/]{1,128}$/);
const anyText = fc.string({ unit: 'binary', maxLength: 80 });
const id = fc.option(fc.oneof(fc.maxSafeInteger(), anyText), { nil: undefined });
const epoch = fc.stringMatching(/^[0-9a-z]{1,12}$/);
const offset = fc.oneof(fc.nat(5), fc.maxSafeNat());
const message = fc.record({
  channel,
  offset,
  data: fc.jsonValue().map((value) => JSON.stringify(value)),
  at: fc.maxSafeNat(),
  from: fc.option(fc.record({ user: fc.option(anyText), connection: anyText }), { nil: undefined }),
});

test('a message frame is the object that it stands for, on one line', () => {
  fc.assert(
    fc.property(message, (parts) => {
      const text = messageFrame(parts);
      const object: MessageFrame = {
        type: 'message',
        channel: parts.channel,
        ...(parts.offset === 0 ? {} : { offset: parts.offset }),
        data: JSON.parse(parts.data) as unknown,
        at: parts.at,
        ...(parts.from === undefined ? {} : { from: parts.from }),
      };
      // An id of -0 and the like are the same JSON: texts are compared, not values.
      expect(JSON.stringify(JSON.parse(text))).toBe(JSON.stringify(JSON.parse(encodeFrame(object))));
      expect(Object.keys(JSON.parse(text) as object)).toEqual(Object.keys(object));
      expect(text).not.toMatch(/[\n\r]/);
      expect(new Publication({ ...parts, epoch: 'e' }).frame).toBe(text);
      expect(messageFrameAround(parts).join(parts.data)).toBe(text);
    }),
    { numRuns: 2_000 },
  );
});

test('data goes out as the text that came in', () => {
  for (const data of ['1e400', '123456789012345678901234567890', '{"a":1,"a":2}', '"\\u0000"', '[ 1 ]']) {
    expect(messageFrame({ channel: 'a', offset: 1, data, at: 5 })).toBe(
      `{"type":"message","channel":"a","offset":1,"data":${data},"at":5}`,
    );
  }
});

test('published tells the position if there is one', () => {
  fc.assert(
    fc.property(id, channel, fc.option(fc.record({ epoch, offset }), { nil: undefined }), (command, name, position) => {
      const object = { type: 'published' as const, ...(command === undefined ? {} : { id: command }), channel: name };
      expect(publishedFrame(command, name, position)).toBe(encodeFrame({ ...object, ...position }));
    }),
  );
});

test('a history frame holds the message frames', () => {
  fc.assert(
    fc.property(id, channel, anyText, offset, fc.array(message, { maxLength: 5 }), fc.boolean(), (...parts) => {
      const [command, name, headEpoch, headOffset, messages, complete] = parts;
      const texts = messages.map(messageFrame);
      const text = historyFrame(command, name, { epoch: headEpoch, offset: headOffset }, texts, complete);
      const object = {
        type: 'history' as const,
        ...(command === undefined ? {} : { id: command }),
        channel: name,
        epoch: headEpoch,
        offset: headOffset,
        messages: texts.map((each) => JSON.parse(each) as MessageFrame),
        complete,
      };
      expect(JSON.stringify(JSON.parse(text))).toBe(JSON.stringify(JSON.parse(encodeFrame(object))));
    }),
  );
});
