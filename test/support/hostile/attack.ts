// A program: attacks a server, in one of the ways below, from a process of its own that steps aside for others. Prints
// `ready` with what it has built up, if it then only holds on, and `done` with what came of it.

import { setPriority } from 'node:os';
import { pick, randomFrom } from '../random.ts';
import { randomFrame } from './frames.ts';
import { Peer, streamOf, textFrame, upgradeTo } from './peer.ts';
import { randomRequest } from './requests.ts';

export interface AttackOptions {
  readonly seed?: number;
  readonly count: number;
  /** Frames, requests or new connections per second. */
  readonly perSecond?: number;
  /** How many connections share the work. */
  readonly sockets?: number;
  /** What connections are opened with, or the channel that is asked for. */
  readonly query?: string;
  /** Every other connection of a crowd is an event stream. */
  readonly mixed?: boolean;
  /** For how long it lasts. */
  readonly milliseconds?: number;
  /** After so many a stream is content. */
  readonly bytesEach?: number;
}

/** What was counted, by name. */
export type Outcome = Readonly<Record<string, number | readonly string[]>>;

type Attack = (url: URL, options: AttackOptions) => Promise<Outcome>;

function say(what: 'ready' | 'done', outcome: Outcome): void {
  process.stdout.write(`${what} ${JSON.stringify(outcome)}\n`);
}

/** Calls the step so often per second, in bursts of a hundredth; resolves after the last. A false step is repeated. */
async function paced(
  count: number,
  perSecond = 1_000,
  step: (index: number) => boolean | Promise<boolean>,
): Promise<void> {
  const startedAt = performance.now();
  for (let done = 0; done < count;) {
    const due = Math.min(count, Math.ceil(((performance.now() - startedAt) / 1_000) * perSecond) + 1);
    while (done < due && (await step(done))) done++;
    await Bun.sleep(10);
  }
}

/** Sockets that may be written to: what comes before the handshake is answered may be taken for a request. */
async function welcomed(url: URL, count: number, query?: string, onData?: (chunk: Buffer) => void): Promise<Peer[]> {
  const open = async (): Promise<Peer> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const peer = await Peer.open(url, {
      first: upgradeTo(query),
      onData: (chunk) => {
        if (chunk.includes('"welcome"')) resolve();
        else onData?.(chunk);
      },
      onClose: () => resolve(),
    });
    await promise;
    return peer;
  };
  return Promise.all(Array.from({ length: count }, open));
}

function countOf(text: string, chunk: Buffer): number {
  let count = 0;
  for (let at = chunk.indexOf(text); at !== -1; at = chunk.indexOf(text, at + 1)) count++;
  return count;
}

/** Frames of noise over a few sockets, each opened again when the server has closed it. */
const frames: Attack = async (url, { seed = 1, count, perSecond, sockets = 16 }) => {
  const random = randomFrom(seed);
  const internal: string[] = [];
  let closed = 0;
  let bytesBack = 0;
  const open = (): Promise<Peer> =>
    Peer.open(url, {
      first: upgradeTo(),
      onData: (chunk) => {
        bytesBack += chunk.length;
        const at = chunk.indexOf('"code":"internal"');
        if (at !== -1) internal.push(chunk.toString('utf8', Math.max(0, at - 200), at + 200));
      },
      onClose: () => closed++,
    });
  const peers = await Promise.all(Array.from({ length: sockets }, open));
  await paced(count, perSecond, async (index) => {
    const at = index % sockets;
    if (peers[at]!.closed) peers[at] = await open();
    return peers[at]!.send(randomFrame(random));
  });
  await Bun.sleep(300);
  for (const peer of peers) peer.cut();
  return { frames: count, closed, bytesBack, internal: internal.slice(0, 5) };
};

/** Each request on a connection of its own, some with a second one behind it, cut soon after. */
const requests: Attack = async (url, { seed = 1, count, perSecond, sockets = 48 }) => {
  const random = randomFrom(seed);
  const statuses = new Map<string, number>();
  const faults: string[] = [];
  let open = 0;
  const judge = (text: string, request: Buffer): void => {
    for (const [, status = ''] of text.matchAll(/HTTP\/1\.1 (\d{3}) /g)) {
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      // 503 says that something else is away, 505 that the runtime could not read the request line.
      if (status.startsWith('5') && !['503', '505'].includes(status)) {
        faults.push(`${status} to ${request.toString('latin1', 0, 2_000)}`);
      }
    }
    if (statuses.size > 0 && text === '') statuses.set('none', (statuses.get('none') ?? 0) + 1);
  };
  const one = async (request: Buffer): Promise<void> => {
    const text: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const peer = await Peer.open(url, {
      first: request,
      onData: (chunk, from) => {
        text.push(chunk.toString('latin1', 0, 4_000));
        // Some read on, as what follows is a stream or a second answer.
        setTimeout(() => from.cut(), 20);
      },
      onClose: () => resolve(),
    });
    const late = setTimeout(() => peer.cut(), 400);
    await promise;
    clearTimeout(late);
    judge(text.join(''), request);
  };
  await paced(count, perSecond, async () => {
    if (open >= sockets) return false;
    open++;
    const request = randomRequest(random);
    const bytes = random() < 0.1 ? Buffer.concat([request, randomRequest(random)]) : request;
    void one(bytes).then(
      () => open--,
      (error: unknown) => {
        open--;
        faults.push(String(error));
      },
    );
    return true;
  });
  while (open > 0) await Bun.sleep(10);
  return { requests: count, ...Object.fromEntries(statuses), faults: faults.slice(0, 5) };
};

/** Opens many, sends each another byte a second, and waits until the server has cut them all. */
async function drip(url: URL, { count, perSecond }: AttackOptions, starts: readonly string[]): Promise<Outcome> {
  const livesMs: number[] = [];
  const peers: Peer[] = [];
  await paced(count, perSecond, async (index) => {
    const first = starts[index % starts.length] ?? '';
    peers.push(await Peer.open(url, { first, onClose: (peer) => livesMs.push(performance.now() - peer.openedAt) }));
    return true;
  });
  say('ready', { opened: peers.length });
  while (livesMs.length < peers.length) {
    await Bun.sleep(1_000);
    for (const peer of peers) peer.send('x');
  }
  return { opened: peers.length, cut: livesMs.length, longestMs: Math.round(Math.max(...livesMs)) };
}

const slowHeads: Attack = (url, options) =>
  drip(url, options, [
    '',
    'G',
    'GET /realtime/ws HTTP/1.1\r\nHost: a\r\nUpgrade: web',
    'GET /realtime/events?channels=a HTTP/1.1\r\nHost: a\r\nX: ',
    'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nContent-Le',
  ]);

const slowBodies: Attack = (url, options) => {
  const post = 'Host: a\r\nContent-Type: application/json\r\n';
  return drip(url, options, [
    `POST /realtime/publish HTTP/1.1\r\n${post}Content-Length: 60000\r\n\r\n{`,
    `POST /realtime/publish HTTP/1.1\r\n${post}Transfer-Encoding: chunked\r\n\r\nfff\r\n{`,
    `POST /realtime/users/7/notify HTTP/1.1\r\n${post}Content-Length: 60000\r\n\r\n{`,
    `POST /demo/posts HTTP/1.1\r\n${post}Content-Length: 6000\r\n\r\n{`,
  ]);
};

/** Half of them sockets, half streams, that read nothing after they are open. Holds on until it is ended. */
const deaf: Attack = async (url, { count, perSecond, query = '' }) => {
  let open = 0;
  let closed = 0;
  const peers: Peer[] = [];
  await paced(count, perSecond, async (index) => {
    const peer = await Peer.open(url, {
      first: index % 2 === 0 ? upgradeTo(query) : streamOf(query),
      onData: (_chunk, from) => {
        from.stopReading();
        open++;
      },
      onClose: () => closed++,
    });
    peers.push(peer);
    return true;
  });
  while (open < peers.length) await Bun.sleep(20);
  say('ready', { opened: peers.length, closed });
  await Promise.withResolvers<never>().promise;
  return {};
};

/** One client that comes to and leaves thousands of channels, as fast as its answers come. */
const storm: Attack = async (url, { seed = 1, count, perSecond, sockets = 1, query }) => {
  const random = randomFrom(seed);
  let answers = 0;
  const peers = await welcomed(url, sockets, query, (chunk) => (answers += countOf('"type":"', chunk)));
  await paced(count, perSecond, (index) => {
    const type = random() < 0.5 ? 'subscribe' : 'unsubscribe';
    const channel = `${pick(['storm', 'ephemeral'], random)}:${Math.floor(random() * 3_000)}`;
    return peers[index % sockets]!.send(textFrame(JSON.stringify({ type, channel, id: index })));
  });
  const deadline = performance.now() + 20_000;
  while (answers < count && performance.now() < deadline) await Bun.sleep(20);
  const closed = peers.filter((peer) => peer.closed).length;
  for (const peer of peers) peer.cut();
  return { commands: count, answers, closed };
};

/** Many clients, each with as many channels as it may have. Holds on until it is ended. */
const hoarders: Attack = async (url, { count, perSecond, sockets = 20, query }) => {
  let subscribed = 0;
  let errors = 0;
  const peers = await welcomed(url, sockets, query, (chunk) => {
    subscribed += countOf('"subscribed"', chunk);
    errors += countOf('"error"', chunk);
  });
  await paced(count * sockets, perSecond, (index) => {
    const channel = `hoard:${index}`;
    return peers[index % sockets]!.send(textFrame(JSON.stringify({ type: 'subscribe', channel })));
  });
  const deadline = performance.now() + 20_000;
  while (subscribed + errors < count * sockets && performance.now() < deadline) await Bun.sleep(20);
  say('ready', { sockets, subscribed, errors, closed: peers.filter((peer) => peer.closed).length });
  await Promise.withResolvers<never>().promise;
  return {};
};

/** Connections that behave: subscribed, reading, answering pings. Holds on until it is ended. */
const crowd: Attack = async (url, { count, perSecond, query = '', mixed = false }) => {
  let welcomed = 0;
  let closed = 0;
  const peers: Peer[] = [];
  await paced(count, perSecond, async (index) => {
    const peer = await Peer.open(url, {
      first: mixed && index % 2 === 1 ? streamOf(query) : upgradeTo(query),
      onData: (chunk, from) => {
        if (chunk.includes('"welcome"')) welcomed++;
        if (chunk[0] === 0x89) from.send(Buffer.from([0x8a, 0x80, 0, 0, 0, 0]));
      },
      onClose: () => closed++,
    });
    peers.push(peer);
    return true;
  });
  const deadline = performance.now() + 20_000;
  while (welcomed + closed < count && performance.now() < deadline) await Bun.sleep(20);
  say('ready', { opened: peers.length, welcomed, closed });
  await Promise.withResolvers<never>().promise;
  return {};
};

/** Publishes to ever new channels. */
const names: Attack = async (url, { count, perSecond, seed = 1 }) => {
  let answers = 0;
  const [peer] = await welcomed(url, 1, undefined, (chunk) => (answers += countOf('"published"', chunk)));
  await paced(count, perSecond, (index) =>
    peer!.send(textFrame(JSON.stringify({ type: 'publish', channel: `name:${seed}-${index}`, data: 1 }))),
  );
  const deadline = performance.now() + 20_000;
  while (answers < count && performance.now() < deadline) await Bun.sleep(20);
  peer!.cut();
  return { published: count, answers };
};

/** Asks for long histories again and again over a few sockets, and reads none of the answers. */
const greedy: Attack = async (url, { count, perSecond, sockets = 16, query = '' }) => {
  let closed = 0;
  const open = (): Promise<Peer> =>
    Peer.open(url, { first: upgradeTo(), onData: (_chunk, peer) => peer.stopReading(), onClose: () => closed++ });
  const peers = await Promise.all(Array.from({ length: sockets }, open));
  await Bun.sleep(200);
  const ask = textFrame(JSON.stringify({ type: 'history', channel: query, limit: 1_000 }));
  await paced(count, perSecond, async (index) => {
    const at = index % sockets;
    if (peers[at]!.closed) {
      peers[at] = await open();
      await Bun.sleep(20);
    }
    return peers[at]!.send(ask);
  });
  for (const peer of peers) peer.cut();
  return { asked: count, closed };
};

/** Asks for long histories all at once, each socket for `count` of them, and reads all that comes. */
const histories: Attack = async (url, { count, sockets = 1, query = '', milliseconds = 60_000 }) => {
  let answers = 0;
  let errors = 0;
  let bytes = 0;
  const peers = await welcomed(url, sockets, undefined, (chunk) => {
    bytes += chunk.length;
    answers += countOf('"complete":', chunk);
    errors += countOf('"type":"error"', chunk);
  });
  const ask = textFrame(JSON.stringify({ type: 'history', channel: query, limit: 1_000 }));
  for (const peer of peers) for (let sent = 0; sent < count; sent++) peer.send(ask);
  const deadline = performance.now() + milliseconds;
  while (answers + errors < count * sockets && performance.now() < deadline) await Bun.sleep(10);
  for (const peer of peers) peer.cut();
  return { asked: count * sockets, answers, errors, megabytes: Math.round(bytes / 1e6) };
};

/**
 * Streams that resume at an old cursor, which `query` holds, all at once; each ends with `bytesEach`. One that is cut
 * before, as a machine that is busy with other things makes its readers slow, comes back as an EventSource does.
 */
const resumers: Attack = async (url, { count, query = '', bytesEach = 0, milliseconds = 60_000 }) => {
  let bytes = 0;
  let whole = 0;
  let returns = 0;
  const deadline = performance.now() + milliseconds;
  const one = async (): Promise<void> => {
    let read = 0;
    // The last event may not be there as a whole.
    let [lastButOne, last] = ['', ''];
    while (read < bytesEach && performance.now() < deadline) {
      if (read > 0) returns++;
      const { promise, resolve } = Promise.withResolvers<void>();
      const since = lastButOne === '' ? query : query.replace(/since=[^&]*/, `since=${encodeURIComponent(lastButOne)}`);
      await Peer.open(url, {
        first: streamOf(since),
        onData: (chunk, from) => {
          read += chunk.length;
          bytes += chunk.length;
          const at = chunk.lastIndexOf('\nid: ');
          const id = at === -1 ? undefined : /^\nid: (\S+)\n/.exec(chunk.toString('latin1', at, at + 1_000))?.[1];
          if (id !== undefined) [lastButOne, last] = [last, id];
          if (read >= bytesEach) from.cut();
        },
        onClose: () => resolve(),
      });
      await promise;
      if (read < bytesEach) await Bun.sleep(100);
    }
    if (read >= bytesEach) whole++;
  };
  await Promise.all(Array.from({ length: count }, one));
  return { streams: count, whole, returns, megabytes: Math.round(bytes / 1e6) };
};

/** As `resumers`, but each reads a piece and then nothing for a while, never so little that it would be cut off. */
const sippers: Attack = async (url, { count, query = '', milliseconds = 1_000 }) => {
  let bytes = 0;
  let closed = 0;
  const peers = await Promise.all(
    Array.from({ length: count }, () =>
      Peer.open(url, {
        first: streamOf(query),
        onData: (chunk, from) => {
          bytes += chunk.length;
          from.stopReading();
          setTimeout(() => from.goOnReading(), 200 + Math.random() * 200);
        },
        onClose: () => closed++,
      }),
    ),
  );
  await Bun.sleep(milliseconds);
  const outcome = { streams: count, closed, megabytes: Math.round(bytes / 1e6) };
  for (const peer of peers) peer.cut();
  return outcome;
};

/** Control frames alone, a third of them pieces of messages that never end. */
const controls: Attack = async (url, { count, perSecond, sockets = 8 }) => {
  const payload = Buffer.alloc(100, 'p');
  const zeros = Buffer.alloc(4);
  const kinds = [0x89, 0x8a].map((kind) => Buffer.concat([Buffer.from([kind, 0x80 | payload.length]), zeros, payload]));
  const first = Buffer.concat([Buffer.from([0x01, 0x80 | payload.length]), zeros, payload]);
  const piece = Buffer.concat([Buffer.from([0x00, 0x80 | payload.length]), zeros, payload]);
  let closed = 0;
  const open = async (): Promise<Peer> => {
    const [peer] = await welcomed(url, 1);
    peer!.send(first);
    return peer!;
  };
  const peers = await Promise.all(Array.from({ length: sockets }, open));
  await paced(count, perSecond, async (index) => {
    const at = index % sockets;
    if (peers[at]!.closed) {
      closed++;
      peers[at] = await open();
    }
    return peers[at]!.send(kinds[index % 3] ?? piece);
  });
  for (const peer of peers) peer.cut();
  return { frames: count, closed };
};

const bodyBytes = 128 << 20;

/** The heads of requests whose bodies are far too large, with a length and in chunks. */
const bodyHeads = [
  'POST /realtime/publish',
  'POST /realtime/users/7/notify',
  'POST /realtime/users/7/disconnect',
  'POST /demo/posts',
  'POST /nowhere',
  'PUT /realtime/publish',
  'GET /health/live',
  'GET /realtime/channels',
  'OPTIONS /realtime/publish',
].flatMap((start) => {
  const head = `${start} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n`;
  return [`${head}Content-Length: ${bodyBytes}\r\n\r\n`, `${head}Transfer-Encoding: chunked\r\n\r\n`];
});

/** Sends bodies of 128 MiB, each at 100 MB a second or as fast as it is taken, until they are cut or sent whole. */
const bodies: Attack = async (url, { count, sockets = 2 }) => {
  const block = Buffer.alloc(64 << 10, 'x');
  const chunk = Buffer.concat([Buffer.from('10000\r\n'), block, Buffer.from('\r\n')]);
  const statuses = new Map<string, number>();
  /** Of bodies that were refused: what they got rid of before, the kernel's buffers included. */
  let takenMiBMax = 0;
  const one = async (head: string): Promise<void> => {
    const piece = head.includes('chunked') ? chunk : block;
    let answer = '';
    const peer = await Peer.open(url, { first: head, onData: (data) => (answer += data.toString('latin1')) });
    let sent = 0;
    const deadline = performance.now() + 20_000;
    while (!peer.closed && sent < bodyBytes && performance.now() < deadline) {
      if (peer.send(piece)) sent += block.length;
      else await Bun.sleep(1);
      if (sent % (1 << 20) === 0) await Bun.sleep(10);
    }
    const takenMiB = Math.round((sent - peer.unsentBytes) / (1 << 20));
    peer.cut();
    const status = /HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 'none';
    if (status === '413') takenMiBMax = Math.max(takenMiBMax, takenMiB);
    const name = `${status} ${/^\S+ \S+/.exec(head)?.[0]} ${head.includes('chunked') ? 'chunked' : 'length'}`;
    statuses.set(name, (statuses.get(name) ?? 0) + 1);
  };
  const queue = Array.from({ length: count }, (_, index) => bodyHeads[index % bodyHeads.length] ?? '').values();
  const sender = async (): Promise<void> => {
    for (const head of queue) await one(head);
  };
  await Promise.all(Array.from({ length: sockets }, sender));
  return { ...Object.fromEntries(statuses), takenMiBMax };
};

export const attacks = {
  names,
  greedy,
  histories,
  resumers,
  sippers,
  controls,
  bodies,
  frames,
  requests,
  slowHeads,
  slowBodies,
  deaf,
  storm,
  hoarders,
  crowd,
};
export type AttackName = keyof typeof attacks;

if (import.meta.main) {
  // The attacker's own work shall not slow down what is measured: on the network it would be another machine's.
  setPriority(10);
  const [url = '', name = '', options = '{}'] = process.argv.slice(2);
  say('done', await attacks[name as AttackName](new URL(url), JSON.parse(options) as AttackOptions));
  process.exit(0);
}
