// Fan-out to WebSockets, over the runtime's native topics. A channel has two: its name, and one for clients that read
// compressed frames.

import type { Fanout, Gap, PresencePush } from '../core/outlet.ts';
import type { Publication } from '../core/publication.ts';
import type { Sessions } from '../core/sessions.ts';
import { deflated, deflatedTopic, isAnyDeflated } from './deflated.ts';
import { gapFrame } from './gap-frame.ts';
import { presenceTopic, websocket, WebSocketConnection } from './websocket.ts';

/** What the fan-out needs of Bun's server. */
export interface TopicPublisher {
  publish(topic: string, data: string | Uint8Array): number;
  subscriberCount(topic: string): number;
}

/** Fan-out over native topics, which join what waits for a socket into one write. */
export class WebSocketFanout implements Fanout {
  readonly transport = websocket;
  readonly #sessions: Sessions;
  readonly #server: () => TopicPublisher | null;

  constructor(sessions: Sessions, server: () => TopicPublisher | null) {
    this.#sessions = sessions;
    this.#server = server;
  }

  publication({ channel, except, frame }: Publication): number {
    const server = this.#server();
    const outlet = except === undefined ? undefined : this.#sessions.get(except)?.outlet;
    const sender = outlet instanceof WebSocketConnection ? outlet : undefined;
    // The status that publish returns is that of the worst subscriber, so it says nothing about the others; a socket
    // over its limit is closed by the server and comes back by position.
    (sender ?? server)?.publish(channel, frame);
    if (isAnyDeflated()) {
      const topic = deflatedTopic(channel);
      if (server !== null && server.subscriberCount(topic) > 0) (sender ?? server).publish(topic, deflated(frame));
    }
    return sender?.hears(channel) === true ? 1 : 0;
  }

  gap(gap: Gap): void {
    const server = this.#server();
    const frame = gapFrame(gap);
    server?.publish(gap.channel, frame);
    if (isAnyDeflated()) server?.publish(deflatedTopic(gap.channel), frame);
  }

  presence(channel: string, shard: number, pushes: readonly PresencePush[]): number {
    const topic = presenceTopic(channel, shard);
    const server = this.#server();
    const count = server?.subscriberCount(topic) ?? 0;
    if (count > 0) for (const { frame } of pushes) server?.publish(topic, frame);
    return count;
  }
}
