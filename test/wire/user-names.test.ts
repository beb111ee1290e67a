// Users whose ids hold what a channel's name may not: identity providers make such ids. Each has a channel of its own.

import { expect, test } from 'bun:test';
import { channelPart } from '../../src/protocol/channel.ts';
import { EventClient, Refused } from '../support/clients.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { call, describeWire, errorOf, post, type Answer } from './wire.ts';

const apiKey = 'the-key-of-the-backend-0123456789';
const backend = { authorization: `Bearer ${apiKey}` };
const ids: readonly [string, string][] = [
  ['ann', 'ann'],
  ['auth0|5f7c8ec7c33c6c004bbafe82', 'auth0%7C5f7c8ec7c33c6c004bbafe82'],
  ['a+b@x', 'a%2Bb@x'],
  ['two words', 'two%20words'],
  ['a:b', 'a%3Ab'],
  ['100%', '100%25'],
  ['%41', '%2541'],
  ['Владимир', '%D0%92%D0%BB%D0%B0%D0%B4%D0%B8%D0%BC%D0%B8%D1%80'],
  ['京👩', '%E4%BA%AC%F0%9F%91%A9'],
  ["o'neil~(1)!*", 'o%27neil%7E%281%29%21%2A'],
];

describeWire('User ids', (wire) => {
  const keyed = wire.shared({ JWT_SECRET: secret, API_KEY: apiKey });
  const notify = async (user: string): Promise<Answer> =>
    post(await keyed(), `/realtime/users/${encodeURIComponent(user)}/notify`, { data: user }, backend);

  // They connected, and `user:<id>`, /notify and every template were `bad_channel`.
  test.each(ids)('%s has the channel user:%s', async (user, part) => {
    const server = await keyed();
    const channel = `user:${part}`;
    expect(channelPart(user)).toBe(part);
    const token = await tokenOf({ sub: user });
    const socket = await wire.socket(server, { query: `token=${token}` });
    expect(await socket.next('welcome')).toMatchObject({ user });
    expect(await socket.request({ type: 'subscribe', channel })).toMatchObject({ type: 'subscribed', channel });
    const query = `token=${token}&channels=${encodeURIComponent(channel)}`;
    const stream = await wire.stream(server, { query });
    await stream.next('welcome');
    const notified = await notify(user);
    expect([notified.status, notified.body]).toMatchObject([200, { channel }]);
    expect(await socket.next('message')).toMatchObject({ channel, data: user });
    expect((await stream.next('message')).frame).toMatchObject({ channel, data: user });
    const history = await call(server, `/realtime/channels/${encodeURIComponent(channel)}/history`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect([history.status, history.body]).toMatchObject([200, { channel, messages: [{ data: user }] }]);
    const sent = await post(server, `/realtime/users/${encodeURIComponent(user)}/disconnect`, '', backend);
    expect(sent.body).toMatchObject({ user, connections: 2 });
  });

  test('each channel is its owner’s alone, and a part is never several', async () => {
    const server = await keyed();
    for (const [user] of ids) {
      const socket = await wire.socket(server, { query: `token=${await tokenOf({ sub: user })}` });
      await socket.next('welcome');
      const others = ids.filter(([other]) => other !== user).map(([, part]) => `user:${part}`);
      socket.send({ type: 'subscribe', channels: [...others, 'user:a:b', 'user:%FF'].map((channel) => ({ channel })) });
      const answers = (await socket.settle()).map(({ type, code }) => code ?? type);
      expect([user, new Set(answers)]).toEqual([user, new Set(['forbidden'])]);
    }
  });

  // `%E9` is "é" in Latin-1. It was read as U+FFFD: the message went to the channel of no user, and the answer was 200.
  test('an id that is no UTF-8 is refused, in an address and in a token', async () => {
    const server = await keyed();
    for (const id of ['%E9', '%ZZ', '%C3', '%EF%BF%BD']) {
      const answers = [
        await post(server, `/realtime/users/${id}/notify`, { data: 1 }, backend),
        await post(server, `/realtime/users/${id}/subscribe`, { channel: 'posts' }, backend),
        await call(server, `/realtime/users/${id}`, { headers: backend }),
      ];
      const told = answers.map(({ status, text }) => [status, errorOf(text).code]);
      expect([id, ...told]).toEqual([id, ...answers.map(() => [400, 'bad_request'])]);
    }
    const socket = await wire.socket(server, { query: `token=${await tokenOf({ sub: 'caf\uFFFD' })}` });
    expect(await socket.next('error')).toMatchObject({ code: 'unauthorized' });
  });

  test('an id whose channel would be too long is told so', async () => {
    const answer = await notify('京'.repeat(29));
    expect([answer.status, errorOf(answer.text).code]).toEqual([400, 'bad_channel']);
    expect((await notify('京'.repeat(27))).status).toBe(200);
  });

  test('of a list of channels in an address each is encoded once more', async () => {
    const server = await keyed();
    const token = await tokenOf({ sub: 'a+b@x' });
    const outcome = await EventClient.open(server.url, { query: `token=${token}&channels=user:a%2Bb@x` }).catch(
      (error: unknown) => error,
    );
    if (!(outcome instanceof Refused)) throw new Error('it was opened');
    expect([outcome.status, errorOf(outcome.body).code]).toEqual([400, 'bad_channel']);
    await wire.stream(server, { query: `token=${token}&channels=user:a%252Bb@x` });
  });
});
