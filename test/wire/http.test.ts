// The HTTP API, the health checks, the metrics and the documentation, as other programs see them.

import { expect, test } from 'bun:test';
import { until } from '../support/tcp-client.ts';
import { call, describeWire, errorOf, post, publish, publishMany, sample, samples, type Published } from './wire.ts';

const dataBytesMax = 65_536;

describeWire('HTTP', (wire) => {
  test('publishing answers the position, and the message arrives', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server, channel);
    const answer = await post(server, '/realtime/publish', { channel, data: { n: 1 }, more: 'is ignored' });
    expect([answer.status, answer.body]).toEqual([200, { channel, epoch: expect.any(String), offset: 1 }]);
    expect(await socket.next('message')).toMatchObject({ channel, offset: 1, data: { n: 1 } });
    const ephemeral = wire.channel('ephemeral');
    expect((await post(server, '/realtime/publish', { channel: ephemeral, data: 1 })).body).toEqual({
      channel: ephemeral,
    });
  });

  test('publishing to several channels answers a list in their order', async () => {
    const server = await wire.server();
    const [a, b] = [wire.channel(), wire.channel()];
    await publish(server, b, 0);
    const answer = await post(server, '/realtime/publish', { channels: [a, b], data: 'both' });
    expect(answer.body).toMatchObject([
      { channel: a, offset: 1 },
      { channel: b, offset: 2 },
    ]);
  });

  // Serializers write null for a field that is empty. A command took it so, and this call refused it.
  test('a member that is null says as little as one that is absent', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const one = await post(server, '/realtime/publish', { channel, channels: null, data: null, key: null });
    expect([one.status, one.body]).toMatchObject([200, { channel, offset: 1 }]);
    const several = await post(server, '/realtime/publish', { channel: null, channels: [channel], data: 2, key: null });
    expect([several.status, several.body]).toMatchObject([200, [{ channel, offset: 2 }]]);
    expect((await post(server, '/realtime/publish', { channel: null, data: 3 })).status).toBe(400);
  });

  test('a key, in the body or as a header, publishes once', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server, channel);
    const inBody = { channel, data: 1, key: 'once' };
    const first = (await post(server, '/realtime/publish', inBody)).body as Published;
    expect((await post(server, '/realtime/publish', { ...inBody, data: 2 })).body).toEqual(first);
    const header = { 'idempotency-key': 'once' };
    expect((await post(server, '/realtime/publish', { channel, data: 3 }, header)).body).toEqual(first);
    expect(await socket.request({ type: 'publish', channel, data: 4, key: 'once' })).toMatchObject({ offset: 1 });
    const both = await Promise.all(
      [5, 6, 7, 8].map((data) => post(server, '/realtime/publish', { channel, data }, { 'idempotency-key': 'race' })),
    );
    expect(both.map(({ body }) => (body as Published).offset)).toEqual([2, 2, 2, 2]);
    const received = (await socket.settle()).filter(({ type }) => type === 'message');
    expect(received.map(({ offset }) => offset)).toEqual([1, 2]);
    // Half a surrogate pair: two such keys are one to a store, which would take the second publication for a repeat.
    for (const key of ['x'.repeat(65), '😀'.repeat(65), '', '\u0000', '\uD800', 'x\uDC00']) {
      expect((await post(server, '/realtime/publish', { channel, data: 1, key })).status).toBe(400);
    }
    const long = await post(server, '/realtime/publish', { channel, data: 1 }, { 'idempotency-key': 'x'.repeat(65) });
    expect([long.status, errorOf(long.text).code]).toEqual([400, 'bad_request']);
  });

  // As `curl -H` sends it. The same key in the body was another one, and the publication came twice.
  test('a key in the header may be UTF-8, and is the same as in the body', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const publish = async (key: string | undefined, header?: string): Promise<unknown> => {
      const headers = header === undefined ? {} : { 'idempotency-key': Buffer.from(header).toString('latin1') };
      return ((await post(server, '/realtime/publish', { channel, data: 1, key }, headers)).body as Published).offset;
    };
    expect(await publish('заказ-5')).toBe(1);
    expect(await publish(undefined, 'заказ-5')).toBe(1);
    expect(await publish(undefined, 'я'.repeat(64))).toBe(2);
    expect(await publish('я'.repeat(64))).toBe(2);
    expect(await publish(undefined, '😀'.repeat(64))).toBe(3);
    expect(await publish('😀'.repeat(64))).toBe(3);
    // One byte of Latin-1, as some programs write it.
    const latin = await post(server, '/realtime/publish', { channel, data: 1 }, { 'idempotency-key': '\u00E9' });
    expect((latin.body as Published).offset).toBe(4);
    expect(await publish('\u00E9')).toBe(4);
  });

  test('a faulty publish is refused with the error body, and changes nothing', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const bad: readonly [unknown, string][] = [
      [{}, 'bad_request'],
      [{ data: 1 }, 'bad_request'],
      [{ channel }, 'bad_request'],
      [{ channel, channels: [channel], data: 1 }, 'bad_request'],
      // Everyone in the channel got what was meant for one connection.
      [{ channel, data: 1, to: '7h2k0v6m4s9d3x1q' }, 'bad_request'],
      [{ channels: [], data: 1 }, 'bad_request'],
      [{ channels: 'a', data: 1 }, 'bad_request'],
      [{ channels: Array(101).fill(channel), data: 1 }, 'bad_request'],
      [{ channel: 7, data: 1 }, 'bad_request'],
      [{ channel: 'no name', data: 1 }, 'bad_channel'],
      [{ channels: [channel, ''], data: 1 }, 'bad_channel'],
      [{ channel, data: 1, key: 7 }, 'bad_request'],
      ['{"channel":', 'bad_request'],
      ['', 'bad_request'],
      ['[]', 'bad_request'],
      ['null', 'bad_request'],
      ['"x"', 'bad_request'],
      [`${'['.repeat(30_000)}${']'.repeat(30_000)}`, 'bad_request'],
    ];
    for (const [body, code] of bad) {
      const answer = await post(server, '/realtime/publish', body);
      const sent = JSON.stringify(body).slice(0, 80);
      expect([sent, answer.status, errorOf(answer.text)]).toMatchObject([sent, 400, { code, retryable: false }]);
    }
    const history = await call(server, `/realtime/channels/${channel}/history`);
    expect(history.body).toMatchObject({ offset: 0, messages: [], complete: true });
  });

  // The fields of a form that have no value, and an address that was put together. An empty limit was none already.
  // Of a list or a key of the wrong length, the answer said only that some field was malformed.
  test('the answer to a faulty publish names the field', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    for (const [name, faulty] of [
      ['channels', { channels: [] }],
      ['channels', { channels: Array(101).fill(channel) }],
      ['channels', { channels: [channel, 7] }],
      ['key', { channel, key: '' }],
      ['key', { channel, key: 'x'.repeat(65) }],
      ['channel', { channel: 7 }],
    ] as const) {
      const answer = await post(server, '/realtime/publish', { data: 1, ...faulty });
      expect([answer.status, errorOf(answer.text).message]).toEqual([400, expect.stringContaining(`"${name}"`)]);
    }
  });

  test('what is empty in a query of history is not given', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    for (const data of [1, 2]) await publish(server, channel, data);
    const history = await call(server, `/realtime/channels/${channel}/history?limit=&epoch=&offset=&before=`);
    expect(history.body).toMatchObject({ offset: 2, messages: [{ data: 1 }, { data: 2 }], complete: true });
    for (const query of ['offset=1', 'epoch=x&offset=', 'epoch=x']) {
      expect((await call(server, `/realtime/channels/${channel}/history?${query}`)).status).toBe(400);
    }
    // Nobody can have this name.
    expect((await post(server, `/realtime/users/${'x'.repeat(129)}/notify`, { data: 1 })).status).toBe(400);
  });

  test('nobody but the server publishes to its own channels', async () => {
    const server = await wire.server();
    const answer = await post(server, '/realtime/publish', { channel: '$system', data: 1 });
    expect([answer.status, errorOf(answer.text).code]).toEqual([403, 'forbidden']);
  });

  test('only JSON is a body', async () => {
    const server = await wire.server();
    const body = JSON.stringify({ channel: wire.channel(), data: 1 });
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'x']) {
      const answer = await post(server, '/realtime/publish', body, { 'content-type': type });
      expect([type, answer.status]).toEqual([type, 400]);
      expect(errorOf(answer.text)).toMatchObject({ code: 'bad_request', retryable: false });
    }
    const type = { 'content-type': 'application/json; charset=utf-8' };
    expect((await post(server, '/realtime/publish', body, type)).status).toBe(200);
  });

  // The answer to each of these was that the body is no UTF-8, or no JSON.
  test('a body that is compressed, or in UTF-16, is refused for what it is', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const json = JSON.stringify({ channel, data: 1 });
    const type = 'application/json';
    for (const [body, headers, cause] of [
      [Bun.gzipSync(json), { 'content-type': type, 'content-encoding': 'gzip' }, 'compressed'],
      [Bun.deflateSync(json), { 'content-type': type, 'content-encoding': 'deflate' }, 'compressed'],
      [Buffer.from(json, 'utf16le'), { 'content-type': `${type}; charset=UTF-16` }, 'charset'],
      [Buffer.from(json, 'utf16le'), { 'content-type': `${type};charset="utf-16le"` }, 'charset'],
      [JSON.stringify({ channel, data: 'é' }), { 'content-type': `${type}; charset=latin1` }, 'charset'],
    ] as const) {
      for (const path of ['/realtime/publish', '/realtime/ticket']) {
        const answer = await call(server, path, { method: 'POST', body, headers });
        expect([path, answer.status, errorOf(answer.text)]).toMatchObject([
          path,
          400,
          { code: 'bad_request', message: expect.stringContaining(cause), retryable: false },
        ]);
      }
    }
    // ASCII is the same in these as in UTF-8.
    for (const charset of ['utf-8', 'UTF8', 'us-ascii', 'iso-8859-1']) {
      const headers = { 'content-type': `${type}; charset=${charset}`, 'content-encoding': 'identity' };
      expect((await post(server, '/realtime/publish', json, headers)).status).toBe(200);
    }
  });

  test('data of 64 KiB is taken, more is 413', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const dataOf = (bytes: number): string => 'x'.repeat(bytes - 2);
    expect(await publish(server, channel, dataOf(dataBytesMax))).toMatchObject({ offset: 1 });
    const more = await post(server, '/realtime/publish', { channel, data: dataOf(dataBytesMax + 1) });
    expect([more.status, errorOf(more.text)]).toMatchObject([413, { code: 'too_large', retryable: false }]);
    const wide = await post(server, '/realtime/publish', { channel, data: 'é'.repeat(40_000) });
    expect([wide.status, errorOf(wide.text).code]).toEqual([413, 'too_large']);
    // Past a mebibyte it was once the runtime's bare 413, without the error's body.
    for (const bytes of [200_000, 1 << 20, 5_000_000, 30_000_000]) {
      const refused = await post(server, '/realtime/publish', { channel, data: dataOf(bytes) });
      expect([bytes, refused.status, errorOf(refused.text).code]).toEqual([bytes, 413, 'too_large']);
    }
    expect(await publish(server, channel, 'next')).toMatchObject({ offset: 2 });
  });

  test('what is nowhere is 404 with the error body, whatever the method', async () => {
    const server = await wire.server();
    for (const path of [
      '/nowhere',
      '/realtime',
      '/realtime/',
      '/realtime/%2e%2e/x',
      '/realtime/channels/a',
      '/..%2f',
      '/%00',
    ]) {
      const answer = await call(server, path);
      expect([path, answer.status, errorOf(answer.text).code]).toEqual([path, 404, 'bad_request']);
    }
    for (const [method, path] of [
      ['POST', '/nowhere'],
      ['PUT', '/realtime/channels/a/nothing'],
      ['DELETE', '/realtime/channels//history'],
      ['OPTIONS', '/nowhere'],
    ] as const) {
      const answer = await call(server, path, { method });
      expect([method, answer.status, answer.headers.get('allow')]).toEqual([method, 404, null]);
    }
  });

  // It was 404, as if the address were wrong.
  test('another method than those of an address is 405, and the answer names these', async () => {
    const server = await wire.server();
    for (const [method, path, allow] of [
      ['GET', '/realtime/publish', 'POST'],
      ['HEAD', '/realtime/publish', 'POST'],
      ['PUT', '/realtime/publish', 'POST'],
      ['POST', '/realtime/events?channels=a', 'GET, HEAD'],
      ['DELETE', '/realtime/channels', 'GET, HEAD'],
      ['PATCH', '/realtime/channels/a%3Ab/history?limit=1', 'GET, HEAD'],
      ['DELETE', '/realtime/users/ann/disconnect', 'POST'],
      ['PATCH', '/metrics', 'GET, HEAD'],
      ['OPTIONS', '/metrics', 'GET, HEAD'],
    ] as const) {
      const answer = await call(server, path, { method });
      expect([method, path, answer.status, answer.headers.get('allow')]).toEqual([method, path, 405, allow]);
      if (method === 'HEAD') continue;
      expect(errorOf(answer.text)).toMatchObject({ code: 'bad_request', retryable: false });
    }
  });

  // HTTP/1.0 asks for no host. Addresses with a name in them were 404 then, and all others were there.
  test('a request of HTTP/1.0 needs no host', async () => {
    const server = await wire.server();
    for (const path of ['/realtime/channels', '/realtime/channels/a/history?limit=1', '/realtime/users/ann']) {
      const tcp = await wire.tcp(server);
      tcp.write(`GET ${path} HTTP/1.0\r\n\r\n`);
      expect([path, (await tcp.readHead()).status]).toEqual([path, 200]);
    }
  });

  test('channels lists those with subscribers of either transport', async () => {
    const server = await wire.server();
    const [a, b] = [wire.channel(), wire.channel()];
    const listedText = async (): Promise<string> => (await call(server, '/realtime/channels')).text;
    await until(async () => (await listedText()) === '{"channels":[]}', 'no channel is there');
    const sockets = [await wire.subscriber(server, a, b), await wire.subscriber(server, a)];
    const stream = await wire.stream(server, { query: `channels=${a}` });
    await stream.next('welcome');
    const listed = await call(server, '/realtime/channels');
    const { channels } = listed.body as { channels: { channel: string; subscribers: number }[] };
    expect(channels.toSorted((x, y) => y.subscribers - x.subscribers)).toEqual([
      { channel: a, subscribers: 3 },
      { channel: b, subscribers: 1 },
    ]);
    await publish(server, wire.channel(), 'nobody reads');
    for (const socket of sockets) await socket.close();
    await stream.cut();
    await until(async () => (await listedText()) === '{"channels":[]}', 'no channel is left');
  });

  test('history answers as the command does, for any name that is a channel', async () => {
    const server = await wire.server();
    const channel = `${wire.channel()}/with@all-of.it`;
    const { epoch } = await publishMany(server, channel, 120);
    const read = (query: string) => call(server, `/realtime/channels/${encodeURIComponent(channel)}/history${query}`);
    const socket = await wire.subscriber(server);
    for (const [query, command] of [
      ['', {}],
      ['?limit=7', { limit: 7 }],
      [`?limit=5&epoch=${epoch}&offset=30`, { limit: 5, since: { epoch, offset: 30 } }],
      [`?epoch=${epoch}&offset=0`, { since: { epoch, offset: 0 } }],
      ['?epoch=other&offset=3', { since: { epoch: 'other', offset: 3 } }],
    ] as const) {
      const answer = await read(query);
      expect(answer.status).toBe(200);
      const { id: _id, ...reply } = await socket.request({ type: 'history', channel, ...command });
      expect(answer.body).toEqual(reply);
    }
    // Numbers are decimal digits: each of these was read as one.
    const odd = ['1e2', '0x10', '0b1', '+5', '%205', '5.0', '1_0', '\u0665'].map((text) => `?limit=${text}`);
    const offsets = ['1e0', '0x1', '', '-0', '1.0'].map((text) => `?epoch=${epoch}&offset=${text}`);
    const plain = ['?limit=0', '?limit=x', '?limit=1001', '?offset=3', `?epoch=${epoch}`, '?epoch=x&offset=-1'];
    for (const query of [...plain, ...odd, ...offsets]) {
      const answer = await read(query);
      expect([query, answer.status, errorOf(answer.text).code]).toEqual([query, 400, 'bad_request']);
    }
    for (const name of ['a%20b', '%22', 'x'.repeat(257), '%E9']) {
      const answer = await call(server, `/realtime/channels/${name}/history`);
      expect([name, answer.status, errorOf(answer.text).code]).toEqual([name, 400, 'bad_channel']);
    }
  });

  test('server-side calls need the API key where one is set', async () => {
    const server = await wire.start({ API_KEY: 'a-key-of-some-length-0123456789' });
    const body = { channel: 'a', data: 1 };
    const paths = ['/realtime/channels', '/realtime/channels/a/history'];
    for (const headers of [
      {},
      { authorization: 'Bearer wrong' },
      { authorization: 'a-key-of-some-length-0123456789' },
    ]) {
      for (const path of paths) {
        const refused = await call(server, path, { headers });
        expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
      }
      const answer = await post(server, '/realtime/publish', body, headers);
      expect([answer.status, errorOf(answer.text)]).toMatchObject([401, { code: 'unauthorized', retryable: false }]);
    }
    const key = { authorization: 'Bearer a-key-of-some-length-0123456789' };
    for (const path of paths) expect((await call(server, path, { headers: key })).status).toBe(200);
    expect((await post(server, '/realtime/publish', body, key)).status).toBe(200);
  });

  test('health answers status and checks', async () => {
    const server = await wire.server();
    for (const path of ['/health/live', '/health/ready']) {
      const answer = await call(server, path);
      expect(answer.status).toBe(200);
      const { status, checks } = answer.body as { status: string; checks: Record<string, { ok: boolean }> };
      expect(status).toBe('ok');
      expect(Object.values(checks).map(({ ok }) => ok)).not.toContain(false);
      expect((await call(server, path, { method: 'HEAD' })).status).toBe(200);
    }
    const { checks } = (await call(server, '/health/ready')).body as { checks: object };
    expect(Object.keys(checks)).toContain('sync');
  });

  test('metrics have the promised names, and their values move', async () => {
    const server = await wire.start({ NODE_ID: 'node-m' });
    const { text, headers } = await call(server, '/metrics');
    expect(headers.get('content-type')).toStartWith('text/plain; version=0.0.4');
    const names = [
      'ws_connections_active',
      'sse_connections_active',
      'connections_total',
      'disconnects_total',
      'subscriptions_active',
      'channels_active',
      'messages_sent_total',
      'messages_received_total',
      'publications_total',
      'message_delivery_duration_seconds',
      'broadcast_failures_total',
      'messages_lost_total',
      'recoveries_total',
      'rate_limited_total',
      'errors_total',
      'sync_up',
      'sync_messages_total',
      'sync_delay_seconds',
      'sync_reconnects_total',
      'sync_errors_total',
      'shutdown_duration_seconds',
    ];
    for (const name of names) expect(text).toContain(`# TYPE sobranie_${name} `);
    expect(text).toContain('# TYPE process_resident_memory_bytes gauge');
    for (const bound of ['0.001', '0.005', '0.01', '0.05', '0.1', '0.5', '1']) {
      expect(text).toContain(`sobranie_message_delivery_duration_seconds_bucket{le="${bound}"}`);
    }

    const socket = await wire.subscriber(server, 'space:a', 'space:b');
    await wire.stream(server, { query: 'channels=space:a,other' });
    await socket.request({ type: 'publish', channel: 'space:a', data: 1 });
    await publish(server, 'space:b', 2);
    await socket.request({ type: 'subscribe', channel: 'no name' });
    const found = await samples(server);
    const expected = {
      'sobranie_ws_connections_active{server_id="node-m"}': 1,
      'sobranie_sse_connections_active{server_id="node-m"}': 1,
      'sobranie_connections_total{transport="websocket",outcome="accepted"}': 1,
      sobranie_subscriptions_active: 4,
      sobranie_channels_active: 3,
      'sobranie_messages_sent_total{type="message",channel="space"}': 3,
      'sobranie_messages_received_total{type="subscribe"}': 2,
      'sobranie_messages_received_total{type="publish"}': 1,
      'sobranie_publications_total{source="client",channel="space"}': 1,
      'sobranie_publications_total{source="api",channel="space"}': 1,
      sobranie_message_delivery_duration_seconds_count: 2,
      'sobranie_errors_total{code="bad_channel"}': 1,
      sobranie_broadcast_failures_total: 0,
    };
    expect(Object.fromEntries(Object.keys(expected).map((name) => [name, found.get(name)]))).toEqual(expected);
    expect(await sample(server, 'sobranie_sync_up')).toBe(1);
    await socket.close();
    const after = await samples(server);
    expect(after.get('sobranie_ws_connections_active{server_id="node-m"}')).toBe(0);
    expect(after.get('sobranie_disconnects_total{transport="websocket",code="1000"}')).toBe(1);
    expect([...after.keys()].filter((name) => /space:|no name/.test(name))).toEqual([]);
  });

  // Each retry of a publish whose answer was lost counted as another publication.
  test('a publication that is repeated by its key counts once', async () => {
    const server = await wire.start();
    const body = JSON.stringify({ channel: 'again:api', data: 1, key: 'k' });
    const answers = [];
    for (let sent = 0; sent < 3; sent++) answers.push((await post(server, '/realtime/publish', body)).text);
    expect(new Set(answers).size).toBe(1);
    expect(JSON.parse(answers[0] ?? '')).toEqual({ channel: 'again:api', epoch: expect.any(String), offset: 1 });
    const socket = await wire.subscriber(server, 'again:socket');
    const command = { type: 'publish', channel: 'again:socket', data: 1, key: 'k' };
    const [first, second] = [await socket.request(command), await socket.request(command)];
    expect([first['offset'], { ...second, id: 0 }]).toEqual([1, { ...first, id: 0 }]);
    await socket.request({ ...command, key: 'another' });
    const found = await samples(server);
    const of = (source: string) => found.get(`sobranie_publications_total{source="${source}",channel="again"}`);
    expect([of('api'), of('client')]).toEqual([1, 2]);
  });

  // What was refused before a call's own code ran, and what answers 404, was counted nowhere. A message to a connection
  // that is not there counted as a publication.
  test('each error that a caller gets is counted by its code, and what was refused is no publication', async () => {
    const server = await wire.start({ MAX_MESSAGE_BYTES: '2000' });
    const post = (path: string, body: string, type = 'application/json') =>
      call(server, path, { method: 'POST', body, headers: { 'content-type': type } });
    const publishing = '/realtime/publish';
    const answers = [
      await post(publishing, 'no json'),
      await post(publishing, '{"channel":"a","data":1}', 'text/plain'),
      await post(publishing, '{"channel":"a"}'),
      await post(publishing, '{"channel":"a","data":1,"key":""}'),
      await post(publishing, '{"channel":"no name","data":1}'),
      await post(publishing, JSON.stringify({ channel: 'a', data: 'x'.repeat(3_000) })),
      await post(publishing, JSON.stringify({ channel: 'a', data: 'x'.repeat(100_000) })),
      await post('/realtime/connections/nobody/send', '{"data":1}'),
      await post('/realtime/nodes/nobody/drain', ''),
    ];
    expect(answers.map(({ status }) => status)).toEqual([400, 400, 400, 400, 400, 413, 413, 404, 404]);
    const socket = await wire.subscriber(server, 'a');
    const direct = await socket.request({ type: 'publish', channel: 'a', data: 1, to: 'nobody' });
    expect(direct['code']).toBe('not_subscribed');
    const found = await samples(server);
    const counted = ['bad_request', 'bad_channel', 'too_large', 'not_subscribed', 'internal'].map((code) =>
      found.get(`sobranie_errors_total{code="${code}"}`),
    );
    expect(counted).toEqual([5, 1, 2, 2, 0]);
    expect([...found.keys()].filter((name) => /publications_total.*channel="a"/.test(name))).toEqual([]);
  });

  test('the documentation comes from this server alone', async () => {
    const server = await wire.server();
    const page = await call(server, '/swagger');
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    const links = [...page.text.matchAll(/\b(?:src|href)="([^"]+)"/g)].map(([, link = '']) => link);
    expect(links.length).toBeGreaterThanOrEqual(3);
    for (const link of links.filter((name) => !name.startsWith('data:'))) {
      expect(link).toMatch(/^\/[^/]/);
      const asset = await call(server, link);
      expect([link, asset.status, asset.text.length > 10]).toEqual([link, 200, true]);
      if (link.endsWith('.css')) expect(asset.text).not.toMatch(/url\(["']?https?:|@import/);
    }
    const { status, body } = await call(server, '/swagger/json');
    expect(status).toBe(200);
    const { openapi, paths } = body as { openapi: string; paths: object };
    expect(openapi).toMatch(/^3\./);
    for (const path of ['/realtime/publish', '/realtime/channels', '/realtime/events', '/health/ready', '/metrics']) {
      expect(Object.keys(paths)).toContain(path);
    }
  });
});
