// A client that takes its types from the app, as Eden does: it sees the routes that `realtime()` mounts beside the app's
// own, with what they take and answer, and they answer so.

import { treaty } from '@elysiajs/eden';
import { afterEach, expect, expectTypeOf, test } from 'bun:test';
import { Elysia } from 'elysia';
import { signToken, type Published, type UserState } from '@sobranie/server';
import { realtime, type HealthAnswer, type Frame } from '@sobranie/server/elysia';
import { patient } from '../support/patience.ts';
import { secret } from '../support/tokens.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
const adminKey = 'the-key-of-the-operator-0123456789';
const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

function start() {
  const app = new Elysia()
    .get('/orders/:id', ({ params }) => ({ id: Number(params.id) }))
    .use(
      realtime({
        database: 'none',
        settings: { JWT_SECRET: secret, API_KEY: apiKey, ADMIN_KEY: adminKey, LOG_LEVEL: 'silent', DRAIN_WINDOW: '0' },
      }),
    )
    .listen({ port: 0, hostname: '127.0.0.1' });
  closing.push(() => app.stop(true));
  return app;
}

type App = ReturnType<typeof start>;
const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

test.each(['over HTTP', 'in the process'])('calls are typed, and answered so, %s', async (way) => {
  const app = start();
  const api = treaty<App>(way === 'over HTTP' ? (app.server?.url.origin ?? '') : app);
  const { data: order } = await api.orders({ id: 7 }).get();
  expectTypeOf(order).toEqualTypeOf<{ id: number } | null>();
  expect(order).toEqual({ id: 7 });

  const { data: published, error } = await api.realtime.publish.post(
    { channel: 'news', data: { text: 'one' } },
    as(apiKey),
  );
  expectTypeOf(published).toEqualTypeOf<Published | null>();
  expect([published?.offset, error]).toEqual([1, null]);
  type Publication = Parameters<typeof api.realtime.publish.post>[0];
  expectTypeOf<Publication>().toEqualTypeOf<{ channel: string; data: unknown; key?: string }>();

  const refused = await api.realtime.publish.post({ channel: 'news', data: 1 });
  if (refused.error?.status !== 401) throw new Error(`not refused: ${refused.status}`);
  expectTypeOf(refused.error.value.error.code).toEqualTypeOf<string>();
  expect(refused.error.value.error.code).toBe('unauthorized');

  const { data: history } = await api.realtime
    .channels({ channel: 'news' })
    .history.get({ ...as(apiKey), query: { limit: 1 } });
  expect(history?.messages[0]?.data).toEqual({ text: 'one' });
  const { data: user } = await api.realtime.users({ user: 'ann' }).get(as(apiKey));
  expectTypeOf(user).toEqualTypeOf<UserState | null>();
  expect(user).toMatchObject({ user: 'ann', online: false });
  const { data: ended } = await api.realtime.users({ user: 'ann' }).unsubscribe.post({ channel: 'news' }, as(apiKey));
  expect(ended?.connections).toBe(0);
  const lost = await api.realtime.connections({ connection: 'nobodys' }).send.post({ data: 1 }, as(apiKey));
  expect(lost.error?.status).toBe(404);
  const { data: nodes } = await api.realtime.nodes.get(as(adminKey));
  expect(nodes?.nodes).toHaveLength(1);
  const { data: health } = await api.health.live.get();
  expectTypeOf(health).toEqualTypeOf<HealthAnswer | null>();
  expect(health?.status).toBe('ok');
  const { data: metrics } = await api.metrics.get();
  expect(metrics).toContain('sobranie_sync_up');
});

test('a stream is iterated and a WebSocket is spoken to', async () => {
  const app = start();
  const api = treaty<App>(app.server?.url.origin ?? '');
  const token = await signToken({ sub: 'ann', channels: { '*': ['subscribe'] } }, { secret });
  await app.decorator.realtime.publish('news', 'one');

  const { data: stream } = await api.realtime.events.get({ query: { channels: 'news', token } });
  if (stream === null) throw new Error('no stream');
  const events: (string | undefined)[] = [];
  for await (const { event, data } of stream) {
    events.push(event);
    if (event === 'welcome') await app.decorator.realtime.publish('news', 'two');
    if (event === 'message') {
      expectTypeOf(data).toEqualTypeOf<Frame>();
      expect(data).toMatchObject({ channel: 'news', offset: 2, data: 'two' });
      break;
    }
  }
  // Whatever else a quiet stream says.
  expect(events[0]).toBe('welcome');
  expect(events.at(-1)).toBe('message');

  const socket = api.realtime.ws.subscribe({ query: { token } });
  const heard = Promise.withResolvers<Frame>();
  socket.subscribe(({ data }) => {
    if (data.type === 'welcome') socket.send({ type: 'subscribe', channel: 'news' });
    if (data.type === 'subscribed') heard.resolve(data);
  });
  expect(await heard.promise).toMatchObject({ channel: 'news', offset: 2 });
  socket.close();
});
