// What one connection is sent keeps its order, though answers to publications wait for the end of their turn to go together.

import type { ServerWebSocket } from 'bun';
import { expect, test } from 'bun:test';
import { anonymous } from '../../../src/core/access.ts';
import { Publication } from '../../../src/core/publication.ts';
import { WebSocketConnection } from '../../../src/transports/websocket.ts';
import { WebSocketFanout } from '../../../src/transports/websocket-fanout.ts';
import { createHub } from '../../support/hub.ts';

interface Opened {
  readonly connection: WebSocketConnection;
  readonly id: string;
  /** Types of frames, and what else became of the socket. */
  readonly seen: string[];
}

function open(): Opened {
  const { sessions } = createHub();
  const seen: string[] = [];
  const topics = new Set<string>();
  const socket = {
    sendText: (text: string) => seen.push(String((JSON.parse(text) as { type: string }).type)),
    cork: (write: () => void) => write(),
    close: () => seen.push('closed'),
    subscribe: (topic: string) => topics.add(topic),
    isSubscribed: (topic: string) => topics.has(topic),
    publish: () => seen.push('to others'),
  };
  const connection = new WebSocketConnection({ sessions, identity: anonymous, channels: [] });
  connection.open(socket as unknown as ServerWebSocket<WebSocketConnection>);
  const [session] = [...sessions.values()];
  seen.length = 0;
  return { connection, id: session!.id, seen };
}

const publication = new Publication({ channel: 'a', epoch: 'e', offset: 1, data: '1', at: 1 });
const position = { epoch: 'e', offset: 1 };

test('answers to publications go out before whatever follows them', async () => {
  const ways: readonly [string, (connection: WebSocketConnection) => void][] = [
    ['message', (connection) => connection.deliver([publication])],
    ['gap', (connection) => connection.gap({ channel: 'a', position, reason: 'trimmed' })],
    ['subscribed', (connection) => connection.subscribed([{ channel: 'a', recoverable: false }], 1)],
    ['pong', (connection) => connection.send('pong', '{"type":"pong"}')],
    ['closed', (connection) => connection.disconnect(1001, 'shutting_down')],
  ];
  for (const [what, follow] of ways) {
    const { connection, seen } = open();
    for (const id of [1, 2]) connection.send('published', JSON.stringify({ type: 'published', id }));
    expect(seen).toEqual([]);
    follow(connection);
    expect(seen).toEqual(['published', 'published', what]);
    await Promise.resolve();
    expect(seen).toHaveLength(3);
  }
});

test('only a sender that hears the channel counts as one who is left out', () => {
  const { connection, id } = open();
  const sessions = { get: () => ({ outlet: connection }) } as unknown as ConstructorParameters<
    typeof WebSocketFanout
  >[0];
  const fanout = new WebSocketFanout(sessions, () => null);
  const own = new Publication({ channel: 'a', epoch: 'e', offset: 1, data: '1', at: 1, except: id });
  expect(fanout.publication(own)).toBe(0);
  connection.join('a');
  expect([fanout.publication(own), fanout.publication(publication)]).toEqual([1, 0]);
});
