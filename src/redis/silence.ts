// Ends connections that are open and dead: a firewall that forgot them, or a machine that is gone without a word. The
// system gives such a connection up after a quarter of an hour, and the driver waits for that. Each is asked for a sign
// of life every few seconds, and any answer is one, also a refusal. The driver then connects anew.

import { Cluster, type Redis } from 'ioredis';

const everyMs = 2_000;
/** As often in a row nothing may come within the time of an answer. */
const silentMax = 2;

/** From now on until the client has ended. */
export function endSilentConnections(client: Redis | Cluster): void {
  const silent = new WeakMap<Redis, number>();
  const timer = setInterval(() => {
    const nodes = client instanceof Cluster ? client.nodes() : [client];
    for (const node of nodes) void look(node, silent);
  }, everyMs);
  client.once('end', () => clearInterval(timer));
}

async function look(node: Redis, silent: WeakMap<Redis, number>): Promise<void> {
  if (node.status !== 'ready') return;
  const { stream } = node;
  const before = bytesOf(stream);
  // One of the commands that the server needs anyway: its user may have no right to others.
  const answered = await node.time().then(
    () => true,
    (error: unknown) => error instanceof Error && error.name === 'ReplyError',
  );
  // What came while this process was held up is read only now.
  if (!answered) await new Promise((resolve) => setImmediate(resolve));
  // A busy server answers late, and something else comes meanwhile.
  const lives = answered || node.stream !== stream || bytesOf(stream) !== before;
  const times = lives ? 0 : (silent.get(node) ?? 0) + 1;
  silent.set(node, times < silentMax ? times : 0);
  if (times === silentMax) node.disconnect(true);
}

function bytesOf(stream: Redis['stream']): number {
  return 'bytesRead' in stream ? Number(stream.bytesRead) : 0;
}
