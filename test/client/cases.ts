// The client against a real server: one suite for every runtime. Each case has channels and a user of its own.

import type { Gap, Message, WebSocketLike } from '@sobranie/client';
import { equal, rejected, until, type Case } from './stage.ts';

const dataOf = (messages: readonly Message[]): unknown[] => messages.map(({ data }) => data);

export const cases: Readonly<Record<string, Case>> = {
  async 'what is published arrives once, in order'(stage) {
    const channel = stage.client(await stage.proxy()).channel(`room:${stage.name}`);
    const got: Message[] = [];
    channel.subscribe((message) => got.push(message));
    await until(() => channel.state === 'live', 'the channel is live');
    for (const data of [1, 'two', { three: [3] }, null]) await channel.publish(data);
    await until(() => got.length >= 4, 'all have come');
    equal(dataOf(got), [1, 'two', { three: [3] }, null]);
    equal(
      got.map(({ offset }) => offset),
      [1, 2, 3, 4],
    );
    equal(channel.position?.offset, 4);
    const { messages, complete } = await channel.history({ limit: 2 });
    equal([dataOf(messages), complete], [[{ three: [3] }, null], false]);
  },

  async 'what came while the connection was away follows, once and in order'(stage) {
    const proxy = await stage.proxy();
    const client = stage.client(proxy);
    const names = Array.from({ length: 5 }, (_, index) => `room:${stage.name}:${index}`);
    const got = names.map((name) => {
      const messages: Message[] = [];
      client.channel(name).subscribe((message) => messages.push(message));
      return messages;
    });
    await until(() => names.every((name) => client.channel(name).state === 'live'), 'all are live');
    for (const name of names) await stage.publish(name, '1');
    await until(() => got.every((messages) => messages.length === 1), 'the first have come');
    await stage.refuse(proxy, true);
    await stage.cut(proxy);
    for (const name of names) for (const data of ['2', '3']) await stage.publish(name, data);
    await until(() => names.every((name) => client.channel(name).state === 'joining'), 'the loss is noticed');
    await stage.refuse(proxy, false);
    await until(() => got.every((messages) => messages.length >= 3), 'the missed have come');
    for (const name of names) await stage.publish(name, '4');
    await until(() => got.every((messages) => messages.length >= 4), 'the last have come');
    for (const messages of got) equal(dataOf(messages), [1, 2, 3, 4]);
  },

  async 'large messages come compressed to who asks, in order with small ones'(stage) {
    let compressed = 0;
    const counting = (Native: typeof WebSocket) =>
      class extends Native {
        constructor(url: string, protocols?: string[]) {
          super(url, protocols);
          this.addEventListener('message', ({ data }) => (compressed += typeof data === 'string' ? 0 : 1));
        }
      } as unknown as new (url: string, protocols?: string[]) => WebSocketLike;
    // Node 20 has none of its own: there only what arrives is seen.
    const Native = globalThis.WebSocket as typeof WebSocket | undefined;
    const proxy = await stage.proxy();
    const client = stage.client(proxy, {
      compression: true,
      platform: Native === undefined ? {} : { WebSocket: counting(Native) },
    });
    const channel = client.channel(`room:${stage.name}`);
    const got: Message[] = [];
    channel.subscribe((message) => got.push(message));
    await until(() => channel.state === 'live', 'the channel is live');
    const long = 'Жан paid for '.repeat(400);
    const sent = Array.from({ length: 30 }, (_, index) => (index % 3 === 0 ? `${index} ${long}` : index));
    for (const data of sent.slice(0, 20)) await stage.publish(channel.name, JSON.stringify(data));
    // Of what is on its way some is inflated when the link ends, some is not, and some never came.
    await stage.cut(proxy);
    for (const data of sent.slice(20)) await stage.publish(channel.name, JSON.stringify(data));
    await until(() => got.length >= sent.length, 'all have come');
    equal(dataOf(got), sent);
    if (stage.transport === 'websocket' && Native !== undefined) equal(compressed > 0, true, 'some came compressed');
  },

  async 'what history no longer holds is a gap, and the channel goes on after it'(stage) {
    const proxy = await stage.proxy();
    const client = stage.client(proxy);
    const channel = client.channel(`small:${stage.name}`);
    const got: (Message | Gap)[] = [];
    channel.subscribe((message) => got.push(message), { onGap: (gap) => got.push(gap) });
    await until(() => channel.state === 'live', 'live');
    await stage.publish(channel.name, '0');
    await until(() => got.length === 1, 'the first has come');
    await stage.refuse(proxy, true);
    await stage.cut(proxy);
    for (let data = 1; data <= 20; data++) await stage.publish(channel.name, String(data));
    await stage.refuse(proxy, false);
    await until(() => got.some(({ type }) => type === 'gap'), 'the gap is told');
    await until(() => channel.state === 'live', 'live again');
    await stage.publish(channel.name, '21');
    await until(() => got.some((event) => event.type === 'message' && event.data === 21), 'the channel goes on');
    const at = got.findIndex(({ type }) => type === 'gap');
    equal((got[at] as Gap).reason, 'trimmed');
    const offsets = got.slice(at + 1).map(({ offset }) => offset ?? 0);
    equal(offsets.at(-1), 22);
    equal(
      offsets,
      offsets.toSorted((one, other) => one - other),
    );
  },

  async 'a publication that was not answered is sent again, and comes once'(stage) {
    const proxy = await stage.proxy();
    const client = stage.client(proxy);
    const channel = client.channel(`room:${stage.name}`);
    const got: Message[] = [];
    channel.subscribe((message) => got.push(message));
    await until(() => channel.state === 'live', 'live');
    const sent = [1, 2, 3, 4, 5].map((data) => channel.publish(data));
    await stage.cut(proxy);
    await Promise.all(sent);
    await until(() => got.length >= 5, 'all have come');
    await channel.publish('last');
    await until(() => got.at(-1)?.data === 'last', 'the last has come');
    equal(new Set(dataOf(got).slice(0, 5)).size, 5);
    equal(got.length, 6);
  },

  async 'a link that died in silence is noticed'(stage) {
    // The torture's network forgets connections too; this one shows how long it takes to find out.
    if (!(await stage.isLong())) return;
    const proxy = await stage.proxy();
    const client = stage.client(proxy);
    const channel = client.channel(`room:${stage.name}`);
    const got: unknown[] = [];
    channel.subscribe(({ data }) => got.push(data));
    await until(() => channel.state === 'live', 'live');
    await stage.swallow(proxy);
    await stage.publish(channel.name, '"meanwhile"');
    // The server's heartbeat is 8 s here.
    await until(() => got.length > 0, 'the client has found out and resumed', 40_000);
    equal(got, ['meanwhile']);
  },

  async 'a token is renewed before it ends, and the connection stays'(stage) {
    let asked = 0;
    const client = stage.client(await stage.proxy(), {
      token: () => {
        asked++;
        return stage.token({ sub: stage.name, seconds: asked === 1 ? 7 : 600 });
      },
    });
    const channel = client.channel(`room:${stage.name}`);
    const got: unknown[] = [];
    channel.subscribe(({ data }) => got.push(data));
    await until(() => channel.state === 'live', 'live');
    const { connection } = client.status;
    await until(() => asked === 2, 'another token was asked for', 30_000);
    // Past the first one's end, which is 5 s after its time.
    await new Promise((resolve) => setTimeout(resolve, stage.transport === 'sse' ? 100 : 8_000));
    await stage.publish(channel.name, '1');
    await until(() => got.length > 0, 'messages go on');
    if (stage.transport === 'websocket') equal(client.status.connection, connection);
  },

  async 'a token that has expired is replaced'(stage) {
    let asked = 0;
    const client = stage.client(await stage.proxy(), {
      token: () => stage.token({ sub: stage.name, seconds: asked++ === 0 ? -60 : 600 }),
    });
    const channel = client.channel(`room:${stage.name}`);
    channel.subscribe(() => undefined);
    await until(() => channel.state === 'live', 'live');
    equal([asked, client.status.user], [2, stage.name]);
  },

  async 'a token that is refused twice ends the client, and everything that waits says why'(stage) {
    const client = stage.client(await stage.proxy(), { token: () => 'not-a-token' });
    const channel = client.channel(`room:${stage.name}`);
    channel.subscribe(() => undefined);
    const error = await rejected(channel.publish(1));
    equal([error.code, client.status.state, client.status.error?.code], ['unauthorized', 'closed', 'unauthorized']);
    equal(channel.state, 'failed');
  },

  // The refusal of an empty name was taken for one of no channel. In the list of a stream's channels neither was one name.
  // Such a channel stayed between the states for ever.
  async 'a channel whose name is empty, or looks like a list, fails alone'(stage) {
    const client = stage.client(await stage.proxy());
    const open = client.channel(`room:${stage.name}`);
    const wrong = ['', `room:${stage.name},b`, 'a b'].map((name) => client.channel(name));
    for (const channel of [open, ...wrong]) channel.subscribe(() => undefined);
    const ended = (): boolean => wrong.every(({ state }) => state === 'failed');
    await until(() => ended() && open.state === 'live', 'they failed, one is live');
    equal(client.status.state, 'connected');
  },

  async 'a channel that is forbidden fails alone'(stage) {
    const channels = { 'room:*': ['subscribe', 'publish'] };
    const client = stage.client(await stage.proxy(), { token: () => stage.token({ sub: stage.name, channels }) });
    const [open, closed] = [client.channel(`room:${stage.name}`), client.channel(`other:${stage.name}`)];
    const got: unknown[] = [];
    open.subscribe(({ data }) => got.push(data));
    closed.subscribe(() => undefined);
    await until(() => closed.state === 'failed' && open.state === 'live', 'one failed, one is live');
    await open.publish(1);
    await until(() => got.length === 1, 'the open one works');
    equal((await rejected(closed.publish(1))).code, 'forbidden');
  },

  // Over event streams it went to everyone in the channel, and was kept.
  async 'what is for one connection reaches no other'(stage) {
    const proxy = await stage.proxy();
    const [one, other] = [stage.client(proxy), stage.client(proxy)];
    const name = `room:${stage.name}`;
    const got: [boolean, unknown, boolean][] = [];
    for (const client of [one, other]) {
      client.channel(name).subscribe(({ data, direct }) => got.push([client === one, data, direct === true]));
      await until(() => client.channel(name).state === 'live', 'live');
    }
    const to = one.status.connection ?? '';
    const sent = other.channel(name).publish('for one', { to });
    if (stage.transport === 'websocket') equal(await sent, undefined);
    else equal((await rejected(sent)).code, 'bad_request');
    await other.channel(name).publish('for all');
    await until(() => got.filter(([, data]) => data === 'for all').length === 2, 'both have what is for all');
    equal(
      got.filter(([, data]) => data === 'for one'),
      stage.transport === 'websocket' ? [[true, 'for one', true]] : [],
    );
  },

  // Something about it was told as an error of the connection.
  async 'a channel that is left at once is no error'(stage) {
    const client = stage.client(await stage.proxy());
    const errors: unknown[] = [];
    client.on('error', ({ code, message }) => errors.push([code, message]));
    client.connect();
    await until(() => client.status.state === 'connected', 'connected');
    client.channel(`room:${stage.name}:left`).subscribe(() => undefined)();
    await new Promise((resolve) => setTimeout(resolve, 400));
    await client.channel(`room:${stage.name}`).publish('behind it');
    equal(errors, []);
  },

  async 'numbers that a double cannot hold arrive as they are'(stage) {
    const json =
      '{"id":9007199254740993,"big":123456789012345678901234567890,"price":0.1234567890123456789,"n":1.5,"s":"9007199254740993"}';
    const expected = {
      string: { id: '9007199254740993', big: '123456789012345678901234567890' },
      bigint: { id: 9007199254740993n, big: 123456789012345678901234567890n },
    };
    const proxy = await stage.proxy();
    for (const numbers of ['string', 'bigint'] as const) {
      const channel = stage.client(proxy, { numbers }).channel(`room:${stage.name}`);
      const got: unknown[] = [];
      channel.subscribe(({ data }) => got.push(data));
      await until(() => channel.state === 'live', 'live');
      await stage.publish(channel.name, json);
      await until(() => got.length === 1, 'it has come');
      equal(got, [{ ...expected[numbers], price: '0.1234567890123456789', n: 1.5, s: '9007199254740993' }]);
    }
  },

  async 'positions that are kept outlive a reload'(stage) {
    const kept = new Map<string, string>();
    const persist = {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => void kept.set(key, value),
      removeItem: (key: string) => void kept.delete(key),
    };
    const proxy = await stage.proxy();
    const name = `room:${stage.name}`;
    const before = stage.client(proxy, { persist });
    const got: unknown[] = [];
    before.channel(name).subscribe(({ data }) => got.push(data));
    await until(() => before.channel(name).state === 'live', 'live');
    await stage.publish(name, '1');
    await until(() => got.length === 1, 'the first has come');
    before.close();
    await stage.publish(name, '2');
    const after = stage.client(proxy, { persist });
    after.channel(name).subscribe(({ data }) => got.push(data));
    await until(() => got.length === 2, 'the missed has come');
    equal(got, [1, 2]);
  },

  async 'iteration brings messages, ends by a signal, and requests do too'(stage) {
    const client = stage.client(await stage.proxy());
    const channel = client.channel(`room:${stage.name}`);
    const abort = new AbortController();
    const got: unknown[] = [];
    const reading = (async () => {
      for await (const event of channel.events({ signal: abort.signal }))
        if (event.type === 'message') got.push(event.data);
    })();
    await until(() => channel.state === 'live', 'live');
    for (const data of [1, 2, 3]) await channel.publish(data);
    await until(() => got.length === 3, 'all have come');
    abort.abort();
    await reading;
    equal(got, [1, 2, 3]);
    equal((await rejected(channel.publish(4, { signal: abort.signal }))).name, 'AbortError');
  },

  async 'a connection that nobody needs ends, and comes back'(stage) {
    const client = stage.client(await stage.proxy());
    const channel = client.channel(`room:${stage.name}`);
    const stop = channel.subscribe(() => undefined);
    await until(() => channel.state === 'live', 'live');
    stop();
    await until(() => client.status.state === 'idle', 'idle');
    equal(channel.state, 'idle');
    const got: unknown[] = [];
    channel.subscribe(({ data }) => got.push(data));
    await until(() => channel.state === 'live', 'live again');
    await channel.publish(1);
    await until(() => got.length === 1, 'it works');
  },

  async 'where no WebSocket passes event streams do, and back'(stage) {
    if (stage.transport === 'sse') return;
    const gateway = await stage.gateway();
    const client = stage.client(gateway, { transport: 'auto' });
    let fallbacks = 0;
    client.on('fallback', () => fallbacks++);
    const channel = client.channel(`room:${stage.name}`);
    const got: unknown[] = [];
    channel.subscribe(({ data }) => got.push(data));
    await until(() => channel.state === 'live', 'live');
    equal([client.status.transport, fallbacks], ['sse', 1]);
    await channel.publish(1);
    await until(() => got.length === 1, 'it works');
    await stage.allowWebSocket(gateway);
    await until(() => client.status.transport === 'websocket' && channel.state === 'live', 'back', 40_000);
    await channel.publish(2);
    await until(() => got.length === 2, 'it works as well');
    equal(got, [1, 2]);
  },

  async 'who is here is seen by all who are'(stage) {
    const proxy = await stage.proxy();
    const [ann, bob] = ['ann', 'bob'].map((user) => {
      const sub = `${stage.name}-${user}`;
      return stage.client(proxy, { token: () => stage.token({ sub }) }).channel(`room:${stage.name}`);
    });
    if (ann === undefined || bob === undefined) throw new Error('nobody');
    const names = (channel: typeof ann): string =>
      channel.presence.members
        .map(({ user, data }) =>
          `${user?.slice(stage.name.length + 1)} ${(data as { mood?: string } | null)?.mood ?? ''}`.trim(),
        )
        .toSorted()
        .join(', ');
    ann.presence.subscribe(() => undefined);
    ann.presence.enter({ mood: 'calm' });
    // A stream can say no more than that it is there.
    const [calm, busy] = stage.transport === 'sse' ? ['', ''] : [' calm', ' busy'];
    await until(() => names(ann) === `ann${calm}`, 'ann sees herself');
    bob.presence.subscribe(() => undefined);
    const leave = bob.presence.enter({ mood: 'calm' });
    for (const each of [ann, bob]) await until(() => names(each) === `ann${calm}, bob${calm}`, 'both see both');
    if (busy !== '') {
      ann.presence.enter({ mood: 'busy' });
      for (const each of [ann, bob]) await until(() => names(each) === `ann${busy}, bob${calm}`, 'both see the change');
    }
    const got: unknown[] = [];
    bob.subscribe(({ data }) => got.push(data));
    leave();
    await until(() => names(ann) === `ann${busy}`, 'bob has left');
    await stage.publish(ann.name, '1');
    await until(() => got.length === 1, 'and goes on listening');
  },

  async 'where presence is forbidden the channel is not'(stage) {
    const channels = { 'room:*': ['subscribe'] };
    const client = stage.client(await stage.proxy(), { token: () => stage.token({ sub: stage.name, channels }) });
    const channel = client.channel(`room:${stage.name}`);
    const got: unknown[] = [];
    channel.subscribe(({ data }) => got.push(data));
    channel.presence.enter();
    await until(() => channel.state === 'live', 'live');
    await stage.publish(channel.name, '1');
    await until(() => got.length === 1, 'it works');
    equal(channel.presence.members, []);
  },

  async 'a channel that the server joins by itself loses nothing either'(stage) {
    const proxy = await stage.proxy();
    const channel = stage.client(proxy).channel(`user:${stage.name}`);
    const got: (Message | Gap)[] = [];
    channel.subscribe((message) => got.push(message), { onGap: (gap) => got.push(gap) });
    await until(() => channel.state === 'live', 'live');
    await stage.publish(channel.name, '1');
    await until(() => got.length === 1, 'the first has come');
    await stage.refuse(proxy, true);
    await stage.cut(proxy);
    await stage.publish(channel.name, '2');
    await stage.refuse(proxy, false);
    await until(() => channel.state === 'live' && got.length >= 2, 'the missed has come');
    await stage.publish(channel.name, '3');
    await until(() => got.length >= 3, 'the last has come');
    equal(
      got.map((event) => (event.type === 'gap' ? 'gap' : event.data)),
      [1, 2, 3],
    );
  },

  // Without a channel there is no event stream. Over that transport a client said that it was connected to nobody.
  async 'without a channel too, a client is connected only while there is a server'(stage) {
    const proxy = await stage.proxy();
    await stage.refuse(proxy, true);
    const states: string[] = [];
    const client = stage.client(proxy);
    client.on('status', ({ state }) => states.push(state));
    client.connect();
    await until(() => states.includes('waiting'), 'it waits for a server');
    equal(states.includes('connected'), false, 'connected to nobody');
    await stage.refuse(proxy, false);
    await until(() => client.status.state === 'connected', 'it is connected');
    await stage.refuse(proxy, true);
    await stage.cut(proxy);
    // Over event streams it asks after as long a silence as other links are asked after.
    await until(() => client.status.state !== 'connected', 'the loss is noticed', 90_000);
    await stage.refuse(proxy, false);
    await until(() => client.status.state === 'connected', 'it is connected again');
  },

  async 'an operator ends a client for good'(stage) {
    if (stage.transport === 'sse') return;
    const client = stage.client(await stage.proxy());
    const channel = client.channel(`room:${stage.name}`);
    channel.subscribe(() => undefined);
    await until(() => channel.state === 'live', 'live');
    await stage.disconnect(stage.name);
    await until(() => client.status.state === 'closed', 'closed');
    equal([client.status.error?.code, channel.state], ['disconnected', 'failed']);
    client.reconnect();
    await until(() => channel.state === 'live', 'asked to, it comes back');
  },
};
