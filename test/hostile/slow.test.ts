// Slowness as a weapon: heads and bodies that trickle, and readers that never read. What trickles is cut in time,
// memory stays bounded, and a bystander notices nothing. LONG=1 brings 2,000 half-open connections and 1,000 deaf readers.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { startAttack, type RunningAttack } from '../support/hostile/attacker.ts';
import { long, Stage } from '../support/hostile/stage.ts';
import type { RunningServer } from '../support/process.ts';
import { TcpClient, until, wait } from '../support/tcp-client.ts';
import { post, sample, samples } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const mebibyte = 1 << 20;
const heads = long ? 2_000 : 300;
const bodies = long ? 1_000 : 200;
const deafReaders = long ? 1_000 : 100;
/** The least that may be set; the runtime counts in steps of four seconds. */
const requestTimeout = '2';
const cutWithinMs = 20_000;

/** Publishes texts of so many bytes at a steady pace, until told to stop. */
async function flow(server: RunningServer, channel: string, bytes: number, perSecond: number, until: () => boolean) {
  const data = 'x'.repeat(bytes);
  const startedAt = performance.now();
  for (let sent = 0; !until();) {
    const due = ((performance.now() - startedAt) / 1_000) * perSecond;
    for (; sent < due; sent++) expect((await post(server, '/realtime/publish', { channel, data })).status).toBe(200);
    await Bun.sleep(5);
  }
}

async function readersLeft(server: RunningServer): Promise<number> {
  return (
    (await sample(server, 'sobranie_ws_connections_active')) + (await sample(server, 'sobranie_sse_connections_active'))
  );
}

/** The bystander's own. */
const bystanders = 3;

describe('What trickles', () => {
  let stage: Stage;

  beforeAll(async () => {
    stage = await Stage.open('slow', { REQUEST_TIMEOUT: requestTimeout });
  }, 60_000);

  afterAll(() => stage?.close(), 60_000);

  test(`${heads} heads and ${bodies} bodies at a byte a second are all cut in time`, async () => {
    const { server } = stage;
    const attacks: RunningAttack[] = [];
    const served = await TcpClient.connect(server.url);
    served.write('GET /health/live HTTP/1.1\r\nHost: a\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\nX: ');
    const drip = setInterval(() => served.write('y'), 500);
    const quiet = await TcpClient.connect(server.url);
    quiet.write('GET /realtime/events?channels=quiet HTTP/1.1\r\nHost: a\r\n\r\n');
    await stage.unharmed(async () => {
      attacks.push(
        startAttack(server, 'slowHeads', { count: heads, perSecond: 500 }),
        startAttack(server, 'slowBodies', { count: bodies, perSecond: 500 }),
      );
      for (const [index, count] of [heads, bodies].entries()) {
        const outcome = await attacks[index]!.done(60_000);
        stage.tell({ outcome });
        expect(outcome).toMatchObject({ opened: count, cut: count });
        expect(Number(outcome['longestMs'])).toBeLessThan(cutWithinMs);
      }
    });
    expect(await sample(server, 'sobranie_errors_total{code="internal"}')).toBe(0);
    // One that was served, and then trickles its next head, fares no better.
    await wait(served.closed, cutWithinMs, 'the end of the served one');
    clearInterval(drip);
    expect(served.received.toString('latin1').match(/HTTP\/1\.1 200/g)).toHaveLength(1);
    // A stream that waits for something to tell is not slow.
    quiet.takeRest();
    await quiet.waitFor(() => quiet.received.includes('keep-alive'), 'a comment', 20_000);
    quiet.cut();
  }, 90_000);
});

describe('Readers that never read', () => {
  test(`${deafReaders} of them harm nobody more than as many that read`, async () => {
    const stage = await Stage.open('deaf');
    const { server } = stage;
    const query = 'channels=flow:1';
    let stopped = false;
    try {
      const crowd = startAttack(server, 'crowd', { count: deafReaders, perSecond: 1_000, query, mixed: true });
      expect(await crowd.ready()).toMatchObject({ opened: deafReaders, closed: 0 });
      const flowing = flow(server, 'flow:1', 2_000, 20, () => stopped);
      const milliseconds = long ? 15_000 : 1_500;
      const reading = await stage.bystander.quiet(milliseconds);
      await crowd.end();
      const deaf = startAttack(server, 'deaf', { count: deafReaders, perSecond: 1_000, query });
      expect(await deaf.ready()).toMatchObject({ opened: deafReaders, closed: 0 });
      const during = await stage.bystander.quiet(milliseconds);
      stage.tell({ reading, during });
      stopped = true;
      await flowing;
      stage.expectUnharmed([reading], during);
      await deaf.end();
      await until(async () => (await readersLeft(server)) === bystanders, 'they are gone', 20_000);
    } finally {
      stopped = true;
      await stage.close();
    }
  }, 120_000);

  test('cost no more together than they may, and are cut, the slowest first', async () => {
    const totalMiB = 16;
    const stage = await Stage.open('budget', {
      // Far above what one of them comes to: what cuts them is their number.
      MAX_BUFFERED_BYTES: String(256 * mebibyte),
      MAX_BUFFERED_BYTES_TOTAL: String(totalMiB * mebibyte),
    });
    const { server } = stage;
    const count = long ? 200 : 40;
    const deaf = startAttack(server, 'deaf', { count, perSecond: 1_000, query: 'channels=flow:2' });
    try {
      expect(await deaf.ready()).toMatchObject({ opened: count, closed: 0 });
      const before = await stage.memory();
      let highestMiB = 0;
      const watch = setInterval(() => {
        void stage.memory().then(({ residentMiB }) => (highestMiB = Math.max(highestMiB, residentMiB)));
      }, 100);
      let left = await readersLeft(server);
      const deadline = performance.now() + 60_000;
      await flow(server, 'flow:2', 30_000, 160, () => {
        void readersLeft(server).then((now) => (left = now));
        return left <= bystanders || performance.now() > deadline;
      });
      clearInterval(watch);
      stage.tell({ before, highestMiB });
      expect(left).toBe(bystanders);
      // Between two looks more arrives, and what was freed is given back a little later.
      expect(highestMiB - before.residentMiB).toBeLessThan(8 * totalMiB);
      expect(server.stdout()).toContain('slow readers together cost too much memory');
      const codes = [...(await samples(server)).keys()].filter((name) => name.startsWith('sobranie_disconnects_total'));
      expect(codes.filter((name) => !name.includes('code="1006"'))).toEqual([]);
      stage.bystander.expectServed();
    } finally {
      await deaf.end();
      await stage.close();
    }
  }, 120_000);
});
