// Bodies of 128 MiB, with a length and in chunks, on every kind of route: refused before they are read or at the limit,
// or not read at all, and never kept.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { attack } from '../support/hostile/attacker.ts';
import { long, Stage } from '../support/hostile/stage.ts';
import { TcpClient } from '../support/tcp-client.ts';
import { errorOf, sample } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const heads = 18;
const rounds = long ? 8 : 1;

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open('bodies');
}, 60_000);

afterAll(() => stage?.close(), 60_000);

test(`${heads * rounds} bodies of 128 MiB are refused or passed over, and the memory stays flat`, async () => {
  const { server } = stage;
  const before = await stage.memory();
  let highestMiB = 0;
  const watch = setInterval(() => {
    void stage.memory().then(({ residentMiB }) => (highestMiB = Math.max(highestMiB, residentMiB)));
  }, 50);
  await stage.unharmed(async () => {
    const outcome = await attack(
      server,
      'bodies',
      { count: heads * rounds, perSecond: 0, sockets: long ? 2 : 6 },
      200_000,
    );
    stage.tell({ outcome });
    const { takenMiBMax, ...statuses } = outcome;
    // What the kernel's buffers hold counts as taken.
    expect(Number(takenMiBMax)).toBeLessThan(16);
    // What reads a body refuses it; what reads none answers at once and lets it pass. A reset may overtake the answer.
    for (const name of Object.keys(statuses))
      expect(name).toMatch(
        /^(413|none) |^(200|204|404|405) (?!POST \/(realtime\/(publish|users\/7\/notify)|demo\/posts))/,
      );
    expect(Object.keys(statuses).filter((name) => name.startsWith('413')).length).toBeGreaterThan(8);
  });
  clearInterval(watch);
  stage.tell({ before, highestMiB });
  expect(highestMiB - before.residentMiB).toBeLessThan(48);
  expect(await sample(server, 'sobranie_errors_total{code="internal"}')).toBe(0);
}, 240_000);

test('a length that is too large is refused before a byte of the body has come', async () => {
  for (const [length, says, ends] of [
    ['100000000', '', true],
    ['30000000', 'too_large', true],
    ['900000', 'too_large', false],
  ] as const) {
    const tcp = await TcpClient.connect(stage.server.url);
    tcp.write(
      'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n' +
        `Content-Length: ${length}\r\n\r\n`,
    );
    const head = await tcp.readHead();
    expect([length, head.status]).toEqual([length, 413]);
    // Past 32 MiB it is the runtime that answers, in fewer words.
    if (says !== '') expect(errorOf(await tcp.readBody(head)).code).toBe(says);
    // Nobody sends for ever what is not read.
    expect([length, head.headers.get('connection')?.toLowerCase() === 'close']).toEqual([length, ends]);
    tcp.cut();
  }
});
