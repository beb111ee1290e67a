// All messages of the log in their order, of all channels, from a number of the stream on. A consumer of the stream brings
// them for a fifth of what it costs the server to look them up: of 51,000 messages 0.16 s of its processor, in place of 0.9.
//
// The consumer is of this walk alone, in memory, and is pulled from. The server forgets it by itself where this node cannot
// say so any more.

import { AckPolicy, DeliverPolicy } from '@nats-io/jetstream';
import type { Msg } from '@nats-io/transport-node';
import { ask } from './answers.ts';
import type { NatsClient } from './connection.ts';
import { readEntry } from './message.ts';
import { textOf } from './message-text.ts';
import type { Swept } from './sweep.ts';

const pulled = { batch: 1_000, max_bytes: 4 << 20, no_wait: true };
const pullTimeoutMs = 5_000;
const forgottenAfterNs = 10e9;
/** What the server ends a pull with when no message is left. */
const noMessages = 404;

/** Until `take` answers false, or no message is left. Rejects when messages were lost on their way. */
export async function walk(
  client: NatsClient,
  stream: string,
  from: number,
  take: (swept: Swept) => boolean,
): Promise<void> {
  const { consumers } = client.readManager;
  const { name } = await consumers.add(stream, {
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: from,
    ack_policy: AckPolicy.None,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: forgottenAfterNs,
  });
  try {
    const subject = `$JS.API.CONSUMER.MSG.NEXT.${stream}.${name}`;
    const question = { subject, text: JSON.stringify(pulled), timeoutMs: pullTimeoutMs };
    for (let [brought, isOver] = [0, false]; !isOver;) {
      const before = brought;
      const last = await ask(client.reading, question, (message) => {
        if (isOver) return true;
        const { place, seq } = numbersOf(message);
        if (place !== ++brought) throw new Error('messages of a walk were lost');
        isOver = !take(sweptOf(message, seq));
        return isOver || brought - before === pulled.batch;
      });
      if (last?.headers?.code === noMessages || brought === before) return;
    }
  } finally {
    consumers.delete(stream, name).catch(() => undefined);
  }
}

interface Numbers {
  /** Among those that the consumer brings, from 1 on. */
  readonly place: number;
  /** Of the stream. */
  readonly seq: number;
}

/**
 * From the subject to acknowledge by, which nobody does: `$JS.ACK`, the stream, the consumer, the count of deliveries, the
 * number of the stream, that of the consumer and more. A server may name its domain and account before the stream.
 */
export function numbersOf({ reply = '' }: Pick<Msg, 'reply'>): Numbers {
  let dots = 0;
  for (let dot = reply.indexOf('.'); dot !== -1; dot = reply.indexOf('.', dot + 1)) dots++;
  let at = 0;
  for (let word = dots === dotsWithoutDomain ? 5 : 7; word > 0; word--) at = reply.indexOf('.', at) + 1;
  const end = reply.indexOf('.', at);
  return { seq: Number(reply.slice(at, end)), place: Number(reply.slice(end + 1, reply.indexOf('.', end + 1))) };
}

const dotsWithoutDomain = 8;

function sweptOf(message: Msg, seq: number): Swept {
  const { headers, body } = textOf(message);
  return { subject: message.subject, entry: readEntry({ seq, headers, body }) };
}
