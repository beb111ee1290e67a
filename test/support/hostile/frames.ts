// Random and mutated WebSocket frames. Most are texts that a server has to answer; a few break the protocol, which ends
// their connection.

import { pick, type Random } from '../random.ts';
import { chance, mutated, randomBytes, randomChannel, randomText, randomValue, whole } from './noise.ts';

const types = ['subscribe', 'unsubscribe', 'publish', 'history', 'presence', 'refresh', 'ping'];
const fields = ['id', 'channel', 'since', 'presence', 'data', 'echo', 'key', 'limit', 'token', '__proto__', 'x'];

/** A command with fields of the right kind, or not. */
function commandText(random: Random): string {
  const command: Record<string, unknown> = { type: pick(types, random), id: whole(random, 1_000) };
  command['channel'] = randomChannel(random);
  if (command['type'] === 'publish') command['data'] = randomValue(random);
  if (command['type'] === 'history') command['limit'] = whole(random, 50);
  if (command['type'] === 'refresh') command['token'] = randomText(random, 30);
  for (let more = whole(random, 3); more > 0; more--) command[pick(fields, random)] = randomValue(random);
  if (chance(random, 0.1)) delete command[pick(fields, random)];
  return JSON.stringify(command);
}

function randomPayload(random: Random): Buffer {
  const kind = random();
  if (kind < 0.45) return Buffer.from(commandText(random));
  if (kind < 0.9) return Buffer.from(mutated(commandText(random), random));
  if (kind < 0.95) return Buffer.from(randomText(random, whole(random, 300)));
  if (kind < 0.97) return Buffer.from(JSON.stringify(randomValue(random)));
  const depth = whole(random, 400);
  if (kind < 0.99) return Buffer.from(`{"type":"publish","channel":"ephemeral:deep","data":${'['.repeat(depth)}}`);
  // A large one is rare, as it costs the attacker too.
  const filling = 'y'.repeat(whole(random, 66_000));
  return Buffer.from(`{"type":"publish","channel":"ephemeral:large","data":"${filling}"}`);
}

function framed(first: number, payload: Uint8Array, mask: Uint8Array): Buffer {
  const { length } = payload;
  const head =
    length < 126
      ? Buffer.from([first, 0x80 | length])
      : length < 65_536
        ? Buffer.from([first, 0xfe, length >> 8, length & 255])
        : Buffer.from([first, 0xff, 0, 0, 0, 0, 0, length >> 16, (length >> 8) & 255, length & 255]);
  const masked = Buffer.from(payload);
  for (let index = 0; index < length; index++) masked[index] = masked[index]! ^ mask[index & 3]!;
  return Buffer.concat([head, mask, masked]);
}

/** What breaks the rules: reserved bits, unknown kinds, no mask, wrong lengths, bytes that are no text, farewells. */
function brokenFrame(random: Random): Buffer {
  const mask = randomBytes(random, 4);
  switch (whole(random, 8)) {
    case 0:
      return randomBytes(random, 1 + whole(random, 200));
    case 1:
      return framed(whole(random, 256), randomBytes(random, whole(random, 200)), mask);
    case 2:
      return framed(0x81, randomBytes(random, 1 + whole(random, 50)), mask);
    case 3:
      return framed(0x82, randomBytes(random, whole(random, 200)), mask);
    case 4:
      return framed(0x88, randomBytes(random, whole(random, 130)), mask);
    case 5:
      return Buffer.concat([Buffer.from([0x81, 0x7e, 0, 10]), randomBytes(random, 10)]);
    case 6:
      return Buffer.concat([Buffer.from([0x81, 0xff]), randomBytes(random, 12)]);
    default:
      return framed(0x80, Buffer.from(commandText(random)), mask);
  }
}

/** The bytes of one frame, or of one message in fragments with a ping between them. */
export function randomFrame(random: Random): Buffer {
  if (chance(random, 0.01)) return brokenFrame(random);
  const mask = chance(random, 0.5) ? Buffer.alloc(4) : randomBytes(random, 4);
  if (chance(random, 0.03)) return framed(pick([0x89, 0x8a], random), randomBytes(random, whole(random, 125)), mask);
  const payload = randomPayload(random);
  if (!chance(random, 0.03)) return framed(0x81, payload, mask);
  const middle = whole(random, payload.length);
  return Buffer.concat([
    framed(0x01, payload.subarray(0, middle), mask),
    framed(0x89, Buffer.from('between'), mask),
    framed(0x80, payload.subarray(middle), mask),
  ]);
}
