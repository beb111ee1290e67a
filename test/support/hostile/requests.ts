// Random and mutated HTTP requests: methods, paths, headers, lengths that disagree, broken chunks, bodies of any kind.

import { pick, type Random } from '../random.ts';
import { chance, mutated, randomBytes, randomChannel, randomText, randomValue, whole } from './noise.ts';

const methods = [
  'GET',
  'POST',
  'HEAD',
  'OPTIONS',
  'PUT',
  'PATCH',
  'DELETE',
  'TRACE',
  'CONNECT',
  'PRI',
  'get',
  'G\u0000T',
];
const paths = [
  '/',
  '/demo/info',
  '/demo/posts',
  '/demo/posts/1',
  '/swagger',
  '/swagger/json',
  '/health/live',
  '/health/ready',
  '/metrics',
  '/realtime/ws',
  '/realtime/events',
  '/realtime/publish',
  '/realtime/channels',
  '/realtime/channels/fuzz:1/history',
  '/realtime/channels/fuzz:1/presence',
  '/realtime/users/7/notify',
  '/realtime/users/7/disconnect',
  '/realtime/users/7/reauthorize',
  '/realtime/ticket',
  '/../../etc/passwd',
  '//evil.example/%2e%2e',
  '*',
  'http://evil.example/realtime/channels',
];
const parameters = ['channels', 'token', 'since', 'limit', 'epoch', 'offset', '__proto__', 'x'];

function randomPath(random: Random): string {
  let path = pick(paths, random);
  // A name that no other request has: nothing of it may stay.
  if (chance(random, 0.2)) path += `/${whole(random, 1e9).toString(36)}`;
  if (chance(random, 0.1)) path = mutated(path, random);
  const query: string[] = [];
  for (let more = whole(random, 4); more > 0; more--) {
    const value = chance(random, 0.5) ? randomChannel(random) : (JSON.stringify(randomValue(random)) ?? '');
    query.push(`${pick(parameters, random)}=${chance(random, 0.95) ? encodeLoosely(value) : value}`);
  }
  return query.length === 0 ? path : `${path}?${query.join('&')}`;
}

function encodeLoosely(text: string): string {
  return [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
}

const names = [
  'Origin',
  'Cookie',
  'Authorization',
  'Upgrade',
  'Connection',
  'Sec-WebSocket-Key',
  'Sec-WebSocket-Version',
  'Sec-WebSocket-Protocol',
  'Sec-WebSocket-Extensions',
  'Last-Event-ID',
  'Idempotency-Key',
  'X-Retry-On',
  'X-Forwarded-For',
  'Range',
  'If-None-Match',
  'Accept',
  'Accept-Encoding',
  'Expect',
  '__proto__',
];

function randomHeader(random: Random): string {
  const name = chance(random, 0.98) ? pick(names, random) : randomText(random, 1 + whole(random, 10));
  const value = pick(
    [
      () => printable(randomText(random, whole(random, 60))),
      () => String(whole(random, 1e6)),
      () => 'websocket',
      () => 'Upgrade, keep-alive',
      () => `Bearer ${printable(randomText(random, 20))}`,
      () => `sobranie, bearer.${printable(randomText(random, 20))}`,
      () => `sobranie_token=${printable(randomText(random, 20))}; a=b`,
      () => randomBytes(random, 16).toString('base64'),
      () => printable(randomBytes(random, whole(random, 40)).toString('latin1')),
      () => 'z'.repeat(chance(random, 0.1) ? 20_000 : 200),
    ],
    random,
  )();
  // One in fifty stays as it is: the runtime refuses the whole request for it.
  return `${name}: ${chance(random, 0.02) ? `${value}\u0000` : value}\r\n`;
}

function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\xa0-\xff]/g, '?');
}

function randomBody(random: Random): string {
  const body = JSON.stringify({ channel: randomChannel(random), data: randomValue(random), key: randomValue(random) });
  return pick(
    [() => body, () => mutated(body, random), () => randomText(random, whole(random, 500)), () => ''],
    random,
  )();
}

function chunked(body: Buffer, random: Random): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length;) {
    const part = body.subarray(at, at + 1 + whole(random, 50));
    at += part.length;
    const size = chance(random, 0.05) ? randomText(random, 3) : part.length.toString(16);
    parts.push(Buffer.from(`${size}${chance(random, 0.1) ? ';x=y' : ''}\r\n`), part, Buffer.from('\r\n'));
  }
  if (chance(random, 0.9)) parts.push(Buffer.from(chance(random, 0.1) ? '0\r\nX: y\r\n\r\n' : '0\r\n\r\n'));
  return Buffer.concat(parts);
}

/** A handshake, mostly right, for paths that upgrade. */
const handshake =
  'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n';

export function randomRequest(random: Random): Buffer {
  const method = chance(random, 0.75) ? pick(methods.slice(0, 2), random) : pick(methods, random);
  const version = chance(random, 0.97) ? 'HTTP/1.1' : pick(['HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'HTTP', ''], random);
  let head = `${method} ${randomPath(random)} ${version}\r\n`;
  if (chance(random, 0.97)) head += `Host: ${chance(random, 0.9) ? 'a' : randomText(random, 12)}\r\n`;
  for (let more = whole(random, 6); more > 0; more--) head += randomHeader(random);
  if (chance(random, 0.05)) head += 'X: y\r\n'.repeat(whole(random, 400));
  if (chance(random, 0.1)) head += handshake;
  if (method !== 'POST' && !chance(random, 0.2)) return Buffer.from(`${head}\r\n`, 'latin1');
  if (chance(random, 0.8)) head += 'Content-Type: application/json\r\n';
  const body = Buffer.from(randomBody(random));
  const asChunks = chance(random, 0.3);
  if (asChunks)
    head += `Transfer-Encoding: ${chance(random, 0.9) ? 'chunked' : pick(['identity', 'xchunked', 'chunked, chunked'], random)}\r\n`;
  if (!asChunks || chance(random, 0.1)) {
    const lengths = [body.length, body.length, body.length, body.length, body.length + 5, 0, -1, 1e9, '0x10', '+3', ''];
    head += `Content-Length: ${pick(lengths, random)}\r\n`;
    if (chance(random, 0.05)) head += `Content-Length: ${whole(random, 100)}\r\n`;
  }
  return Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), asChunks ? chunked(body, random) : body]);
}
