// The operator's calls about nodes: which there are, draining one, and how a request looks when it reaches a node, which
// shows what the gateways before it have made of it.

import { Elysia } from 'elysia';
import type { Cluster } from '../core/cluster.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Clock } from '../time/clock.ts';
import type { ServerAccess } from './server-access.ts';

export interface NodeRoutesOptions {
  readonly node: string;
  readonly version: string;
  readonly cluster: Cluster;
  readonly serverAccess: ServerAccess;
  readonly clock: Clock;
  /** Who opened the connection to this node. */
  readonly peerOf: (request: Request) => { readonly address: string; readonly port: number } | undefined;
  /** By what the node counts the sender. */
  readonly addressOf: (request: Request) => string | undefined;
}

/** What gateways add, change or leave out. */
const shownHeaders = [
  ...['host', 'connection', 'upgrade', 'sec-websocket-protocol', 'accept-encoding', 'last-event-id', 'x-retry-on'],
  ...['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip'],
];

export function nodeRoutes(options: NodeRoutesOptions): Elysia {
  const { node, version, cluster, serverAccess, clock, peerOf, addressOf } = options;
  const app = new Elysia({ name: 'sobranie-nodes', prefix: '/realtime' })
    .get(
      '/nodes',
      ({ request }) => {
        serverAccess.requireAdmin(request);
        return { nodes: cluster.nodes() };
      },
      {
        detail: {
          summary: 'The nodes that are alive',
          description: 'Needs the admin key. Connections are those of a few seconds ago.',
          tags: ['operations'],
        },
      },
    )
    .post(
      '/nodes/:node/drain',
      async ({ request, params }) => {
        serverAccess.requireAdmin(request);
        if (await cluster.drain(params.node)) return { node: params.node, draining: true };
        throw new RealtimeError('bad_request', 'There is no node of this name.', { status: 404 });
      },
      {
        // The call has no body, and one that comes is not read.
        parse: () => ({}),
        detail: {
          summary: 'Have a node drain and end, as after SIGTERM',
          description: 'Needs the admin key. Answers 404 when no node has this name.',
          tags: ['operations'],
        },
      },
    )
    .get(
      '/request',
      ({ request }) => {
        serverAccess.requireAdmin(request);
        const peer = peerOf(request);
        const present = shownHeaders.filter((name) => request.headers.has(name));
        return {
          node,
          version,
          at: clock.now(),
          peer: peer === undefined ? null : { address: peer.address, port: peer.port },
          address: addressOf(request) ?? null,
          headers: Object.fromEntries(present.map((name) => [name, request.headers.get(name)])),
        };
      },
      {
        detail: {
          summary: 'How this request looks when it reaches a node',
          description:
            'Needs the admin key. peer: who opened the connection; address: by what the node counts the sender.',
          tags: ['operations'],
        },
      },
    );
  return app as unknown as Elysia;
}
