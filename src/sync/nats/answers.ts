// An answer of several messages: each is taken as it arrives, and one without a body ends them. The driver hands them over
// by an iterator, with a promise for each: of the fifty thousand messages of a crowd that was a third of a second.

import { createInbox, errors, type Msg, type NatsConnection } from '@nats-io/transport-node';

export interface Question {
  readonly subject: string;
  readonly text: string;
  /** For the answer as a whole. */
  readonly timeoutMs: number;
}

const nobodyThere = 503;

/**
 * Resolves with the message that has no body, which `take` does not get, or with undefined once `take` has answered true:
 * nothing more is to come. Rejects with what `take` throws.
 */
export async function ask(
  connection: NatsConnection,
  question: Question,
  take: (message: Msg) => boolean,
): Promise<Msg | undefined> {
  const { subject, text, timeoutMs } = question;
  const last = Promise.withResolvers<Msg | undefined>();
  const inbox = createInbox();
  let isOver = false;
  const subscription = connection.subscribe(inbox, {
    callback: (error, message) => {
      if (error !== null) return last.reject(error);
      try {
        if (message.data.length > 0) {
          if (take(message)) last.resolve(undefined);
        } else if (message.headers?.code === nobodyThere) {
          last.reject(new errors.NoRespondersError(subject));
        } else {
          last.resolve(message);
        }
      } catch (failure) {
        last.reject(failure);
      }
    },
  });
  void subscription.closed.then((error) => {
    if (!isOver) last.reject(error ?? new errors.ClosedConnectionError());
  });
  const timer = setTimeout(() => last.reject(new errors.TimeoutError()), timeoutMs);
  try {
    connection.publish(subject, text, { reply: inbox });
    return await last.promise;
  } finally {
    isOver = true;
    clearTimeout(timer);
    subscription.unsubscribe();
  }
}
