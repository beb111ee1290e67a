// The end of clients of Kafka, also where Kafka does not answer any more.

import type { Base } from '@platformatic/kafka';
import { within } from '../time/within.ts';

const endTimeoutMs = 1_000;

/** Never rejects. What was written cannot leave a connection that is half open: after a second it is cut. */
export async function endClients(clients: readonly Base[]): Promise<void> {
  const sockets = clients.flatMap(({ connections }) => Array.from(connections, ([, { socket }]) => socket));
  try {
    await within(Promise.all(clients.map((client) => client.close())), endTimeoutMs, 'the end of the connections');
  } catch {
    for (const socket of sockets) socket.destroy();
  }
}
