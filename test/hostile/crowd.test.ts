// Too much of what is allowed: a client that comes to and leaves channels as fast as it can, clients that hoard
// channels, one user with thousands of connections. A bystander notices nothing and nothing stays. LONG=1 brings 20 clients with
// 1,000 channels each and 5,000 connections of one user.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { SignJWT } from 'jose';
import { attack, startAttack, type RunningAttack } from '../support/hostile/attacker.ts';
import { long, Stage } from '../support/hostile/stage.ts';
import { seed } from '../support/random.ts';
import { until } from '../support/tcp-client.ts';
import { call, post, sample } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const commands = long ? 200_000 : 8_000;
const hoarders = long ? 20 : 3;
const channelsEach = 1_000;
const connections = long ? 5_000 : 600;
const secret = 'a secret of these tests that is long enough';
const apiKey = 'the-key-of-the-backend-0123456789';

let stage: Stage;
let token: string;

async function tokenOf(user: string): Promise<string> {
  return new SignJWT({ sub: user, channels: { '*': ['subscribe', 'publish', 'history'] } })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('30m')
    .sign(new TextEncoder().encode(secret));
}

beforeAll(async () => {
  token = await tokenOf('eve');
  stage = await Stage.open('crowd', { JWT_SECRET: secret, API_KEY: apiKey }, await tokenOf('bystander'));
}, 60_000);

afterAll(() => stage?.close(), 60_000);

async function expectAlone(): Promise<void> {
  const { server } = stage;
  const alone = async (): Promise<boolean> =>
    (await sample(server, 'sobranie_subscriptions_active')) === 2 &&
    (await sample(server, 'sobranie_channels_active')) === 1 &&
    (await sample(server, 'sobranie_ws_connections_active')) === 2;
  await until(alone, 'the bystander is alone', 20_000);
}

describe('Too much of what is allowed', () => {
  test(`${commands} subscribes and unsubscribes in a row are all answered, and leave nothing`, async () => {
    const { server } = stage;
    const storm = (count: number) =>
      attack(server, 'storm', { seed, count, perSecond: 6_000, query: `token=${token}` }, 120_000);
    await storm(1_000);
    const before = await stage.heldMemory();
    await stage.unharmed(async () => {
      const outcome = await storm(commands);
      stage.tell({ outcome });
      expect(outcome).toMatchObject({ commands, answers: commands, closed: 0 });
    });
    await expectAlone();
    await stage.settlesTo(before, () => storm(1_000));
  }, 240_000);

  test(`${hoarders} clients with ${channelsEach} channels each have them, and not one more`, async () => {
    const { server } = stage;
    let hoard: RunningAttack | undefined;
    await stage.unharmed(async () => {
      hoard = startAttack(server, 'hoarders', {
        count: channelsEach + 50,
        sockets: hoarders,
        perSecond: 4_000,
        query: `token=${token}`,
      });
      expect(await hoard.ready(120_000)).toEqual({
        sockets: hoarders,
        subscribed: hoarders * channelsEach,
        errors: hoarders * 50,
        closed: 0,
      });
    });
    expect(await sample(server, 'sobranie_channels_active')).toBe(hoarders * channelsEach + 1);
    await hoard?.end();
    await expectAlone();
  }, 180_000);

  test(`${connections} connections of one user are served, and sent away with one call`, async () => {
    const { server } = stage;
    const before = await stage.heldMemory();
    const query = `channels=user:eve&token=${token}`;
    let crowd: RunningAttack | undefined;
    await stage.unharmed(async () => {
      crowd = startAttack(server, 'crowd', { count: connections, perSecond: 500, query });
      expect(await crowd.ready(60_000)).toEqual({ opened: connections, welcomed: connections, closed: 0 });
    });
    const key = { authorization: `Bearer ${apiKey}` };
    expect((await post(server, '/realtime/users/eve/notify', { data: 1 }, key)).status).toBe(200);
    const disconnected = await post(server, '/realtime/users/eve/disconnect', '', key);
    expect(disconnected.body).toMatchObject({ user: 'eve', connections });
    await expectAlone();
    await crowd?.end();
    stage.bystander.expectServed();
    const stir = async (): Promise<void> => {
      const few = startAttack(server, 'crowd', { count: 100, perSecond: 1_000, query });
      await few.ready();
      await few.end();
    };
    await stage.settlesTo(before, stir);
    await expectAlone();
    expect((await call(server, '/health/ready')).status).toBe(200);
  }, 240_000);
});
