// What a crowd lacks is brought by one walk over the log. Where that cannot begin, or loses a message on its way, whoever
// waited for it reads for itself: a recovery brings all, in order, and says so.

import { connect } from '@nats-io/transport-node';
import { describe, expect, test } from 'bun:test';
import { connect as connectTcp, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { parseNatsUrl, type NatsTarget } from '../../src/nats/target.ts';
import { Rules } from '../../src/rules/rules.ts';
import type { NatsAdapter } from '../../src/sync/nats/adapter.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { walk } from '../../src/sync/nats/walk.ts';
import { systemClock } from '../../src/time/clock.ts';
import { answered } from '../support/answered.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { deaf, natsAdapter } from '../support/nats-harness.ts';
import { startNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';
import { until } from '../support/tcp-client.ts';

patient();

const names = new NatsNames('fails');
const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
const channels = Array.from({ length: 120 }, (_, index) => `crowd:${index}`);
const each = 6;
const had = 2;

/** A node on which each of the channels has its publications, one of each channel in each round. */
async function fullNode(target: NatsTarget): Promise<NatsAdapter> {
  // A second is that of the crowd's clock.
  const adapter = natsAdapter(target, names, { clock: { ...systemClock, monotonic: () => 0 } });
  await adapter.start(deaf);
  for (let round = 1; round <= each; round++) {
    for (const channel of channels) {
      const outgoing = { channel, rule, data: `"${channel} ${round}"`, at: Date.now(), key: `${channel} ${round}` };
      await answered(() => adapter.publish(outgoing));
    }
  }
  return adapter;
}

/** A busy machine is asked again; what became of the walk is nothing that a reader is told. */
function refuse(error: unknown): never {
  const { cause } = error as Error;
  if (/permission|lost/i.test(String(cause))) throw new Error('a reader was refused for the walk', { cause });
  throw error;
}

/** All channels are recovered, many at once. */
async function recover(adapter: NatsAdapter): Promise<void> {
  const { epoch } = adapter.client;
  const wanted = Array.from({ length: each - had }, (_, index) => had + 1 + index);
  const left = [...channels];
  const reader = async (): Promise<void> => {
    for (let channel = left.pop(); channel !== undefined; channel = left.pop()) {
      const query = { since: { epoch, offset: had }, limit: 1_000 };
      const page = await answered(() => adapter.history(channel, rule, query).catch(refuse));
      expect(page.gap).toBeUndefined();
      expect(page.complete).toBe(true);
      expect(page.publications.map(({ offset, data }) => [offset, data])).toEqual(
        wanted.map((offset) => [offset, `"${channel} ${offset}"`]),
      );
    }
  };
  await Promise.all(Array.from({ length: 32 }, reader));
}

test('a user without the right to create consumers: a crowd’s recovery brings all, in order', async () => {
  const config = join(temporaryFolder('nats-rights'), 'nats.conf');
  const permissions = '{ publish: { deny: "$JS.API.CONSUMER.>" }, subscribe: ">" }';
  await Bun.write(config, `authorization: { users: [{ user: ann, password: pass, permissions: ${permissions} }] }`);
  const nats = await startNats(['-c', config], { user: 'ann', pass: 'pass' });
  const adapter = await fullNode(parseNatsUrl(nats.url.replace('//', '//ann:pass@')));
  try {
    const refused: string[] = [];
    const watch = async (): Promise<void> => {
      for await (const status of adapter.client.reading.status()) {
        if (status.type === 'error') refused.push(String(status.error));
      }
    };
    void watch();
    await recover(adapter);
    expect(refused.join()).toContain('$JS.API.CONSUMER.CREATE');
    expect(adapter.health().up).toBe(true);
  } finally {
    await adapter.close();
    await nats.close();
  }
});

describe('a message that is lost on the way', () => {
  /** The first that its reader lacks, of a channel whose reader waits for the walk. */
  const place = 100;
  const lost = `d"${channels[place]} ${had + 1}".`;
  const lostSeq = had * channels.length + place + 1;

  test('ends the walk, and its channel is read otherwise', async () => {
    const nats = await startNats();
    // Consumers bring messages with a subject to acknowledge them by, answers come without.
    const lossy = await startLossy(nats.port, (frame) => frame.includes('$JS.ACK.') && frame.includes(lost));
    const adapter = await fullNode(parseNatsUrl(`nats://127.0.0.1:${lossy.port}`));
    const spy = await connect({ servers: nats.url });
    try {
      let walks = 0;
      spy.subscribe(`$JS.API.CONSUMER.CREATE.>`, { callback: () => void walks++ });
      await spy.flush();
      const taken: number[] = [];
      const walking = walk(adapter.client, names.logStream, 1, ({ entry }) => taken.push(entry.seq) > 0);
      await expect(walking).rejects.toThrow('lost');
      expect(taken).toEqual(Array.from({ length: lostSeq - 1 }, (_, index) => index + 1));

      await recover(adapter);
      await spy.flush();
      expect(walks).toBeGreaterThan(1);
      const { consumers } = adapter.client.readManager;
      const left = async (): Promise<number> => (await consumers.list(names.logStream).next()).length;
      await until(async () => (await left()) === 0, 'no consumer is left');
    } finally {
      await Promise.all([adapter.close(), spy.close()]);
      lossy.close();
      await nats.close();
    }
  });
});

interface Lossy {
  readonly port: number;
  close(): void;
}

/** A way to a server of NATS on which messages are lost, each as a whole. */
async function startLossy(port: number, isLost: (frame: string) => boolean): Promise<Lossy> {
  const server = createServer((client) => {
    const upstream = connectTcp(port, '127.0.0.1');
    let rest = Buffer.alloc(0);
    client.pipe(upstream);
    upstream.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (let end = endOfFrame(rest); end !== undefined; end = endOfFrame(rest)) {
        const frame = rest.subarray(0, end);
        if (!isLost(frame.toString('latin1'))) client.write(frame);
        rest = rest.subarray(end);
      }
    });
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      socket.on('error', () => other.destroy());
      socket.on('close', () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  return { port: (server.address() as AddressInfo).port, close: () => void server.close() };
}

/** Behind the first frame; undefined while it has not come whole. A message ends its line with its length. */
function endOfFrame(bytes: Buffer): number | undefined {
  const line = bytes.indexOf('\r\n');
  if (line === -1) return undefined;
  const words = bytes.toString('latin1', 0, line).split(' ');
  const isMessage = words[0] === 'MSG' || words[0] === 'HMSG';
  const end = line + 2 + (isMessage ? Number(words.at(-1)) + 2 : 0);
  return end > bytes.length ? undefined : end;
}
