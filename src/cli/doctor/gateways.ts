// Which gateway stands before the server, as far as its answers tell, and what its setting against each fault is called.

import { Exchange } from './exchange.ts';
import type { Fault } from './finding.ts';

export type GatewayName = 'nginx' | 'HAProxy' | 'Caddy' | 'Traefik' | 'Envoy' | 'Kong' | 'Cloudflare';

type Signs = ReadonlyMap<string, string>;

const bySigns: readonly (readonly [GatewayName, (headers: Signs) => boolean])[] = [
  ['Kong', (headers) => headers.has('x-kong-upstream-latency') || /kong/i.test(headers.get('via') ?? '')],
  ['Cloudflare', (headers) => headers.has('cf-ray')],
  ['Envoy', (headers) => headers.get('server') === 'envoy' || headers.has('x-envoy-upstream-service-time')],
  ['Caddy', (headers) => /caddy/i.test(`${headers.get('server') ?? ''} ${headers.get('via') ?? ''}`)],
  ['nginx', (headers) => /nginx|openresty/i.test(headers.get('server') ?? '')],
];

/** By the headers of an answer, or else by how it answers what is no request. Undefined for one that hides well. */
export async function recognise(url: string, headers: Signs): Promise<GatewayName | undefined> {
  const found = bySigns.find(([, fits]) => fits(headers));
  if (found !== undefined) return found[0];
  try {
    const broken = await Exchange.open(url, { method: 'GET', path: '/ broken', timeoutMs: 3_000 });
    const text = await broken.text(3_000).catch(() => '');
    const hidden = bySigns.find(([, fits]) => fits(broken.headers));
    if (hidden !== undefined) return hidden[0];
    if (/<h1>400 Bad request<\/h1>\s*Your browser sent an invalid request/.test(text)) return 'HAProxy';
    // Go's own answer. Caddy is written in Go too, and says its name.
    if (text.startsWith('400 Bad Request')) return 'Traefik';
  } catch {
    // It answers nothing at all to that.
  }
  return undefined;
}

const settings: Readonly<Record<Fault, Partial<Record<GatewayName, string>> & { readonly other: string }>> = {
  buffering: {
    nginx: 'proxy_buffering off; and no proxy_ignore_headers X-Accel-Buffering',
    HAProxy: 'no `option http-buffer-request`, and no filter that collects answers',
    Caddy: 'flush_interval -1, and no response_buffers, in reverse_proxy',
    Traefik: 'no `buffering` middleware on this router',
    Envoy: 'no envoy.filters.http.buffer or file_system_buffer filter on this route',
    Kong: 'response_buffering: false on the route',
    Cloudflare: 'no rule that caches or transforms /realtime/events',
    other: 'switch the buffering of answers off for /realtime/events',
  },
  late: {
    HAProxy: 'option http-no-delay',
    nginx: 'tcp_nodelay on; (which is the default), and no tcp_nopush without it',
    other: 'switch Nagle’s algorithm off (TCP_NODELAY) towards clients',
  },
  upgrade: {
    nginx:
      'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;',
    HAProxy: 'no `http-request del-header Upgrade` or Connection, and no `option httpclose`',
    Caddy: 'no header_up that removes Upgrade or Connection, and `transport http { versions 1.1 }`',
    Traefik: 'no `headers` middleware that empties Upgrade or Connection',
    Envoy: 'upgrade_configs: [{ upgrade_type: websocket }] in the HTTP connection manager',
    Kong: 'protocols: [http, https] on the route, over HTTP/1.1',
    Cloudflare: 'Network: WebSockets on',
    other: 'pass the headers Upgrade and Connection to the node, over HTTP/1.1',
  },
  subprotocol: {
    nginx: 'no proxy_set_header Sec-WebSocket-Protocol, and no proxy_hide_header of that name',
    HAProxy: 'no http-request or http-response del-header Sec-WebSocket-Protocol',
    Caddy: 'no header_up or header_down -Sec-WebSocket-Protocol',
    other: 'pass the header Sec-WebSocket-Protocol, both ways',
  },
  http10: {
    nginx: 'proxy_http_version 1.1; in the location, and keepalive 64; in the upstream',
    HAProxy: 'http-reuse safe, and no `option httpclose`',
    Caddy: 'no `keepalive off` in the transport',
    other: 'speak HTTP/1.1 on both sides, and keep connections to nodes open',
  },
  cache: {
    nginx: 'proxy_cache off; and no proxy_ignore_headers Cache-Control',
    HAProxy: 'no `http-request cache-use` for /realtime',
    Caddy: 'no cache handler for /realtime',
    Cloudflare: 'a cache rule that bypasses /realtime/*',
    other: 'never cache anything under /realtime',
  },
  gzip: {
    nginx: 'gzip off; for /realtime/events, or gzip_types without text/event-stream',
    HAProxy: '`compression type` without text/event-stream',
    Caddy: 'no `encode` for /realtime/events',
    Traefik: 'excludedContentTypes: [text/event-stream] in the compress middleware',
    Envoy: 'no text/event-stream in content_type of the compressor filter',
    other: 'do not compress text/event-stream',
  },
  address: {
    nginx: 'proxy_set_header X-Forwarded-For $remote_addr; and TRUSTED_PROXIES at the nodes',
    HAProxy: 'http-request set-header X-Forwarded-For %[src] and TRUSTED_PROXIES at the nodes',
    Caddy: 'no header_up -X-Forwarded-For, and TRUSTED_PROXIES at the nodes',
    Traefik: 'TRUSTED_PROXIES at the nodes',
    Envoy: 'use_remote_address: true, and TRUSTED_PROXIES at the nodes',
    Kong: 'TRUSTED_PROXIES at the nodes',
    other: 'have the gateway set X-Forwarded-For, and name it in TRUSTED_PROXIES at the nodes',
  },
  forged: {
    nginx: 'proxy_set_header X-Forwarded-For $remote_addr;',
    HAProxy: 'http-request set-header X-Forwarded-For %[src]',
    Caddy: 'no trusted_proxies that takes everyone in',
    Traefik: 'no forwardedHeaders.insecure, and trustedIPs of your own proxies alone',
    Envoy: 'use_remote_address: true',
    other: 'have the gateway replace X-Forwarded-For, and TRUSTED_PROXIES name your own proxies alone',
  },
  cut: {
    Envoy: 'timeout: 0s in the route, and no max_stream_duration',
    nginx: 'no limit on the life of a connection before it',
    Traefik: 'respondingTimeouts.writeTimeout: 0s',
    Caddy: 'no stream_timeout, and no write timeout in servers',
    HAProxy: 'no timeout before it that counts the whole answer',
    other: 'switch off what ends an answer after a fixed time',
  },
  idle: {
    nginx: 'proxy_read_timeout 75s;',
    HAProxy: 'timeout client, timeout server and timeout tunnel 75s',
    Caddy: 'no read_timeout in the transport, and no idle timeout below 75s',
    Traefik: 'no transport timeout below 75s',
    Envoy: 'stream_idle_timeout: 75s, also that of the route',
    Kong: 'read_timeout and write_timeout 75000 in the service',
    other: 'let connections be silent for 75 seconds',
  },
};

export function mending(fault: Fault, gateway: GatewayName | undefined): string {
  const { other, ...named } = settings[fault];
  return (gateway === undefined ? undefined : named[gateway]) ?? other;
}
