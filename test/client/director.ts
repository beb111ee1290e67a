// The director of the client's suite: the server under test, proxies to break, tokens, and an address at which cases
// that run in other runtimes ask for them.

import type { Server } from 'bun';
import { TestRules } from '../support/rules-file.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { nowSeconds, secret, tokenOf } from '../support/tokens.ts';
import type { Director } from './stage.ts';

const apiKey = 'the-key-of-the-backend-0123456789';

export interface RunningDirector {
  /** Where cases ask. */
  readonly url: string;
  readonly server: RunningServer;
  close(): Promise<void>;
}

export async function startDirector(): Promise<RunningDirector> {
  const rules = new TestRules(
    `{ channels: 'user:{sub}', join: 'always' }, { channels: 'small:*', recoverable: true, history: { size: 5, seconds: 60 } }, { channels: '*', recoverable: true }`,
  );
  const server = await startServer({
    SYNC: 'memory',
    JWT_SECRET: secret,
    API_KEY: apiKey,
    ALLOWED_ORIGINS: '*',
    CONFIG_FILE: rules.path,
    HEARTBEAT: '8',
    BROADCAST_INTERVAL: '0',
    SHUTDOWN_TIMEOUT: '0',
    WS_COMPRESSION: 'true',
  });
  const proxies = new Map<string, Proxy>();
  const gateways = new Map<string, Gateway>();
  const proxyOf = (url: string): Proxy => {
    const proxy = proxies.get(url);
    if (proxy === undefined) throw new Error(`no proxy at ${url}`);
    return proxy;
  };
  const post = async (path: string, body: string): Promise<void> => {
    const headers = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' };
    const response = await fetch(server.url + path, { method: 'POST', body, headers });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  };
  const calls: { [Call in keyof Director]: (...args: Parameters<Director[Call]>) => unknown } = {
    token: ({ sub, seconds = 600, channels = { '*': ['subscribe', 'publish', 'history', 'presence'] } }) =>
      tokenOf({ sub, channels }, nowSeconds() + seconds),
    publish: (channel, json) => post('/realtime/publish', `{"channel":${JSON.stringify(channel)},"data":${json}}`),
    disconnect: (user) => post(`/realtime/users/${user}/disconnect`, '{}'),
    async proxy() {
      const proxy = await startProxy({ port: server.port });
      const url = `http://127.0.0.1:${proxy.port}`;
      proxies.set(url, proxy);
      return url;
    },
    cut: (url) => proxyOf(url).cut(),
    swallow: (url) => proxyOf(url).swallow(),
    refuse(url, refuses) {
      proxyOf(url).mode = refuses ? 'refuse' : 'forward';
    },
    gateway() {
      const gateway = startGateway(server);
      gateways.set(gateway.url, gateway);
      return gateway.url;
    },
    allowWebSocket: (url) => gateways.get(url)?.allow(),
    isLong: () => process.env['LONG'] === '1',
  };
  const headers = { 'access-control-allow-origin': '*' };
  const desk = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const { call, args } = (await request.json()) as { call: keyof Director; args: never[] };
      try {
        const value = await (calls[call] as (...args: unknown[]) => unknown)(...args);
        return Response.json({ value }, { headers });
      } catch (error) {
        return Response.json({ error: String(error) }, { headers });
      }
    },
  });
  return {
    url: desk.url.href,
    server,
    async close() {
      for (const proxy of proxies.values()) await proxy.close();
      for (const gateway of gateways.values()) await gateway.close();
      await desk.stop(true);
      await server.stop();
    },
  };
}

interface Gateway {
  readonly url: string;
  allow(): void;
  close(): Promise<void>;
}

/** Passes requests on as a proxy that was set up before there were WebSockets; then, when it is allowed, them too. */
function startGateway(server: RunningServer): Gateway {
  let isAllowed = false;
  const upstreams = new Map<object, WebSocket>();
  const waiting = new Map<object, string[]>();
  interface Data {
    readonly path: string;
    readonly protocols: string[];
  }
  const gateway: Server<Data> = Bun.serve<Data>({
    hostname: '127.0.0.1',
    port: 0,
    idleTimeout: 0,
    async fetch(request, self) {
      const { pathname, search } = new URL(request.url);
      if (request.headers.get('upgrade') !== null) {
        const protocols = (request.headers.get('sec-websocket-protocol') ?? '').split(/, ?/);
        if (!isAllowed) return new Response('what is this?', { status: 403 });
        const options = {
          data: { path: pathname + search, protocols },
          headers: { 'sec-websocket-protocol': 'sobranie' },
        };
        return self.upgrade(request, options) ? undefined : new Response('no', { status: 400 });
      }
      const { method, headers, signal } = request;
      const body = method === 'POST' ? await request.text() : undefined;
      return fetch(server.url + pathname + search, { method, headers, signal, ...(body !== undefined && { body }) });
    },
    websocket: {
      open(socket) {
        const { path, protocols } = socket.data;
        const upstream = new WebSocket(server.url.replace('http', 'ws') + path, protocols);
        upstreams.set(socket, upstream);
        upstream.onopen = () => {
          for (const text of waiting.get(socket) ?? []) upstream.send(text);
          waiting.delete(socket);
        };
        waiting.set(socket, []);
        upstream.onmessage = ({ data }) => void socket.send(String(data));
        upstream.onclose = ({ code, reason }) => socket.close(code === 1006 ? 1001 : code, reason);
      },
      message(socket, text) {
        const held = waiting.get(socket);
        if (held === undefined) upstreams.get(socket)?.send(String(text));
        else held.push(String(text));
      },
      close(socket) {
        upstreams.get(socket)?.close();
        upstreams.delete(socket);
      },
    },
  });
  return {
    url: gateway.url.href,
    allow: () => (isAllowed = true),
    close: () => gateway.stop(true),
  };
}
