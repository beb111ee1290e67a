// The checks that take a moment each: what passes the gateway, what it looks like at the node, and what comes back.

import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { Exchange } from './exchange.ts';
import { fail, ok, skip, warn, type Finding } from './finding.ts';
import type { SeenRequest, StreamWatch, Visit } from './visit.ts';

/** A welcome that is not there by then is held back. */
const welcomeMs = 3_000;

/** Throws, with what is there instead, when no server of ours answers at this address. */
export async function reach(visit: Visit): Promise<{ findings: Finding[]; exchange: Exchange }> {
  // Without channels it is refused, by the server itself, before any right is asked for.
  const exchange = await Exchange.open(visit.url, { path: '/realtime/events' });
  const text = await exchange.text();
  const isOurs = /^\{"error":\{"code":"[a-z_]+"/.test(text);
  if (!isOurs) throw new Error(`${exchange.status} by something else than this server: ${text.slice(0, 120)}`);
  const { version } = exchange;
  const spoken =
    version === '1.1'
      ? ok('http', 'HTTP/1.1')
      : fail('http', `answers in HTTP/${version}: no WebSocket and no stream without an end passes that`, 'http10');
  return { exchange, findings: [ok('reach', `answers at ${visit.url}`), spoken] };
}

export async function checkUpgrade(visit: Visit, seen: SeenRequest | undefined): Promise<Finding[]> {
  const offered = { 'Sec-WebSocket-Protocol': 'sobranie' };
  const exchange = await visit.handshake(offered);
  exchange.close();
  if (exchange.status !== 101) {
    const text = exchange.status === 426 ? 'the node gets no upgrade' : `the handshake is answered ${exchange.status}`;
    const lost =
      seen !== undefined && seen.headers['upgrade'] === undefined ? ': the header Upgrade does not arrive' : '';
    return [fail('websocket', `${text}${lost}`, 'upgrade')];
  }
  const protocol = exchange.headers.get('sec-websocket-protocol');
  return [
    ok('websocket', 'the upgrade passes'),
    protocol === 'sobranie'
      ? ok('subprotocol', 'sobranie is answered')
      : fail(
          'subprotocol',
          'the subprotocol that was offered is not answered: browsers close the connection',
          'subprotocol',
        ),
  ];
}

/** Whether an event stream is what the server sends, and at once. */
export async function checkStream(visit: Visit): Promise<Finding[]> {
  let stream: StreamWatch;
  try {
    stream = await visit.stream({}, welcomeMs);
  } catch (error) {
    return [fail('stream', `an event stream is not answered: ${messageOf(error)}`, 'buffering')];
  }
  try {
    const { status, headers } = stream.exchange;
    if (status !== 200) return [fail('stream', `an event stream is answered ${status}`)];
    const findings: Finding[] = [];
    const type = headers.get('content-type') ?? 'none';
    if (!type.startsWith('text/event-stream')) findings.push(fail('stream', `the content type is ${type}`));
    const welcome = await stream.events.find(({ type: event }) => event === 'welcome', welcomeMs);
    if (welcome === undefined) {
      return [
        ...findings,
        fail('stream', `opens, and its first event is not there after ${welcomeMs / 1_000} s`, 'buffering'),
      ];
    }
    findings.push(ok('stream', 'opens, and its first event comes at once'));
    findings.push(await checkCache(visit, stream, welcome.data['connection']));
    return findings;
  } finally {
    stream.close();
  }
}

async function checkCache(visit: Visit, first: StreamWatch, connection: unknown): Promise<Finding> {
  const { headers } = first.exchange;
  const second = await visit.stream({}, welcomeMs).catch(() => undefined);
  const welcome = await second?.events.find(({ type }) => type === 'welcome', welcomeMs);
  second?.close();
  const age = second?.exchange.headers.get('age') ?? headers.get('age');
  if (welcome !== undefined && welcome.data['connection'] === connection) {
    return fail('cache', 'two streams got the same answer: it came from a cache', 'cache');
  }
  if (age !== undefined) return fail('cache', `a stream is answered with Age: ${age}, from a cache`, 'cache');
  if (welcome === undefined)
    return fail('cache', 'a second stream beside the first gets nothing: a cache waits for the first', 'cache');
  return ok('cache', 'each stream is its own');
}

export async function checkCompression(visit: Visit): Promise<Finding> {
  const headers = { 'Accept-Encoding': 'gzip, deflate, br' };
  const stream = await visit.stream(headers, welcomeMs).catch(() => undefined);
  if (stream === undefined) {
    const plain = await visit.stream({}, welcomeMs).catch(() => undefined);
    plain?.close();
    if (plain === undefined) return skip('compression', 'no stream opens, compressed or not');
    return fail('compression', 'a client that accepts compression gets no answer', 'gzip');
  }
  try {
    const encoding = stream.exchange.headers.get('content-encoding');
    const decoder = encoding === undefined ? undefined : decoders[encoding]?.();
    decoder?.on('data', (chunk: Buffer) => stream.feed(chunk));
    decoder?.on('error', () => undefined);
    if (decoder !== undefined) stream.exchange.onBody((chunk) => decoder.write(chunk));
    const welcome = await stream.events.find(({ type }) => type === 'welcome', welcomeMs);
    if (welcome === undefined && encoding === undefined) {
      return skip('compression', 'none; that events do not come has another cause');
    }
    if (welcome === undefined) {
      return fail('compression', `compressed by ${encoding} on the way, and held back by it`, 'gzip');
    }
    return ok('compression', encoding === undefined ? 'none' : `${encoding}, and events come at once`);
  } finally {
    stream.close();
  }
}

const decoders: Readonly<Record<string, () => NodeJS.ReadWriteStream>> = {
  gzip: () => createGunzip(),
  deflate: () => createInflate(),
  br: () => createBrotliDecompress(),
};

const publications = 12;
/** Longer than any network adds to one of two connections, and shorter than what waiting for an acknowledgement takes. */
const lateMsMin = 25;

/** Whether an event leaves as soon as the same message does over a WebSocket. */
export async function checkDelay(visit: Visit): Promise<Finding> {
  const stream = await visit.stream({}, welcomeMs).catch(() => undefined);
  const socket = await visit.socket();
  try {
    if (stream === undefined) return skip('delay', 'there is no stream to measure');
    await stream.events.find(({ type }) => type === 'welcome', welcomeMs);
    await socket.events.find(({ type }) => type === 'subscribed', welcomeMs);
    const late: number[] = [];
    for (let number = 0; number < publications; number++) {
      const isIt = ({ data }: { data: Readonly<Record<string, unknown>> }): boolean =>
        data['data'] === `delay ${number}`;
      if (!(await visit.publish(`delay ${number}`))) {
        return skip('delay', 'not measured: it needs the right to publish; name the API key with --key or API_KEY');
      }
      const answeredAt = performance.now();
      const event = await stream.events.find(isIt, 2_000);
      if (event === undefined) return fail('delay', 'what is published does not come within 2 s', 'buffering');
      const message = await socket.events.find(isIt, 100);
      late.push(event.at - Math.min(message?.at ?? answeredAt, answeredAt));
    }
    late.sort((one, other) => one - other);
    const median = Math.max(0, late[publications / 2] ?? 0);
    if (median < lateMsMin)
      return ok('delay', `events come as soon as they are published (median ${median.toFixed(1)} ms)`);
    return fail('delay', `each event is held back for about ${Math.round(median)} ms`, 'late');
  } finally {
    stream?.close();
    socket.close();
  }
}

/** A stream that is cut and opened again gets exactly what it missed, wherever it comes. */
export async function checkResume(visit: Visit): Promise<Finding> {
  const first = await visit.stream({}, welcomeMs).catch(() => undefined);
  const welcome = await first?.events.find(({ type }) => type === 'welcome', welcomeMs);
  const cursor = first?.lastEventId;
  first?.close();
  if (welcome === undefined || cursor === undefined) return skip('resume', 'there is no stream to resume');
  for (const data of ['resume 1', 'resume 2']) {
    if (!(await visit.publish(data))) return skip('resume', 'not tried: it needs the right to publish');
  }
  const second = await visit.stream({ 'Last-Event-ID': cursor }, welcomeMs).catch(() => undefined);
  const last = await second?.events.find(({ data }) => data['data'] === 'resume 2', welcomeMs);
  const got = second?.events.all.filter(({ type }) => type === 'message' || type === 'gap') ?? [];
  second?.close();
  if (second === undefined || last === undefined || got.length !== 2) {
    return fail('resume', `a stream that came back got ${got.length} of 2 events that it had missed`);
  }
  const again = await second.events.find(({ type }) => type === 'welcome', 0);
  const where = again?.data['node'] === welcome.data['node'] ? 'at the same node' : 'at another node';
  return ok('resume', `a stream that was cut got exactly what it missed, ${where}`);
}

export async function checkNodes(visit: Visit): Promise<Finding> {
  const nodes = new Set<unknown>();
  for (let attempt = 0; attempt < 8; attempt++) {
    const socket = await visit.socket();
    const welcome = await socket.events.find(({ type }) => type === 'welcome', welcomeMs);
    socket.close();
    if (welcome === undefined) break;
    nodes.add(welcome.data['node']);
  }
  if (nodes.size === 0) return skip('nodes', 'no WebSocket opened');
  return ok('nodes', nodes.size === 1 ? 'one node answers' : `${nodes.size} nodes answer`);
}

export async function checkOrigin(visit: Visit): Promise<Finding> {
  const exchange = await visit.handshake({ Origin: 'https://sobranie-doctor.invalid' });
  exchange.close();
  if (exchange.status === 101) {
    return warn('origin', 'pages of every origin may connect: set ALLOWED_ORIGINS if you use cookies or no tokens');
  }
  return ok('origin', `a page of a foreign origin is refused (${exchange.status})`);
}

/** What the public sees that it need not see. */
export async function checkExposure(visit: Visit): Promise<Finding> {
  const exchange = await Exchange.open(visit.url, { path: '/metrics' });
  const text = await exchange.text();
  if (exchange.status === 200 && text.includes('sobranie_')) {
    return warn('metrics', 'anyone who reaches this address reads /metrics: have the gateway answer 404');
  }
  return ok('metrics', '/metrics is not visible here');
}

export async function checkToken(visit: Visit): Promise<Finding> {
  const { token } = visit.options;
  if (token === undefined) return skip('token', 'none given: --token checks one');
  const socket = await visit.socket();
  const welcome = await socket.events.find(({ type }) => type === 'welcome' || type === 'error', welcomeMs);
  socket.close();
  const { user, message } = welcome?.data ?? {};
  if (welcome?.type === 'welcome') return ok('token', `belongs to ${JSON.stringify(user)}`);
  return fail('token', `refused: ${typeof message === 'string' ? message : (socket.closing?.reason ?? 'no answer')}`);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
