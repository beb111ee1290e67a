// The transports of this server: each brings its name, and what its open connections are called in metrics. A new one is
// a file in src/transports/, its route there, and a line here.

import { EventFanout, eventStreams } from '../transports/event-fanout.ts';
import { webSockets } from '../transports/websocket.ts';
import { WebSocketFanout, type TopicPublisher } from '../transports/websocket-fanout.ts';
import type { Fanout, TransportKind } from '../core/outlet.ts';
import type { Sessions } from '../core/sessions.ts';

export const transportKinds: readonly TransportKind[] = [webSockets, eventStreams];

export interface Transports {
  readonly all: readonly Fanout[];
  readonly events: EventFanout;
}

/** `publisher` is Bun's server, once it listens. */
export function createTransports(
  sessions: Sessions,
  publisher: () => TopicPublisher | null,
  bufferedBytesMax: number,
): Transports {
  const events = new EventFanout(bufferedBytesMax);
  return { all: [new WebSocketFanout(sessions, publisher), events], events };
}
