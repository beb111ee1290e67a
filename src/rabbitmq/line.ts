// One connection to RabbitMQ that comes back after each loss: the driver connects again, and `prepare` opens what is
// needed on it, before anybody hears that it is there. It is given up when the server is silent for about 8 seconds.

import { connect, type ChannelModel, type RecoveringChannelModel } from 'amqplib';
import { within } from '../time/within.ts';
import { RabbitFailure } from './failure.ts';
import type { RabbitTarget } from './target.ts';

export interface LineEvents {
  /** Opens channels on a new connection. Rejects when it cannot: then the connection is made anew. */
  prepare(model: ChannelModel): Promise<void>;
  /** Nothing can be sent or heard until `prepare` is called again. */
  lost(error: unknown): void;
  /** The server takes no publications for now: its memory or its disk is full. */
  blocked(isBlocked: boolean): void;
}

const connectTimeoutMs = 5_000;
const heartbeatSeconds = 4;
const closeTimeoutMs = 1_000;
/** Nodes that lose a server in the same instant return spread out. */
const recovery = { initialDelay: 50, maxDelay: 1_000, jitter: 0.5 };

export class RabbitLine {
  #connection: RecoveringChannelModel | undefined;
  #model: ChannelModel | undefined;
  #closed = false;

  /** Resolves when it is prepared. Rejects when the first try fails; nothing stays open then. */
  async open({ tlsCa, ...target }: RabbitTarget, name: string, events: LineEvents): Promise<void> {
    const connection = await connect(
      { ...target, heartbeat: heartbeatSeconds },
      {
        timeout: connectTimeoutMs,
        noDelay: true,
        keepAlive: true,
        clientProperties: { connection_name: name },
        ...(tlsCa === undefined ? {} : { ca: [Buffer.from(tlsCa)] }),
        recovery: {
          ...recovery,
          initialMaxRetries: 0,
          waitForConnect: false,
          setup: async (model: ChannelModel) => {
            this.#model = model;
            // The driver listens once this has ended; an error that nobody hears would end the process.
            model.on('error', (error) => events.lost(error));
            events.blocked(false);
            await events.prepare(model);
          },
        },
      },
    );
    connection.on('error', (error) => events.lost(error));
    connection.on('disconnect', (error) => events.lost(error));
    connection.on('blocked', () => events.blocked(true));
    connection.on('unblocked', () => events.blocked(false));
    this.#connection = connection;
    try {
      await connection.waitForConnect();
    } catch (error) {
      await this.close();
      throw RabbitFailure.of(error);
    }
  }

  /** Ends the connection: another one takes its place. */
  drop(reason: string): void {
    if (!this.#closed) cut(this.#model, reason);
  }

  /** Never rejects. A server that does not answer the farewell is left without it. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await within(this.#connection?.close() ?? Promise.resolve(), closeTimeoutMs, 'the farewell of RabbitMQ');
    } catch (error) {
      cut(this.#model, String(error));
    }
  }
}

/** The driver knows no end without a farewell. Its connection holds the socket, which its types leave out. */
function cut(model: ChannelModel | undefined, reason: string): void {
  const connection = model?.connection as { stream?: { destroy(error: Error): void } } | undefined;
  connection?.stream?.destroy(new Error(reason));
}
