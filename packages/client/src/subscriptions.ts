// What is asked for and left over the link there is: which channels a frame names, and whom a frame concerns. What is in a
// channel is the channel's affair, and when there is a link the connection's.

import type { ChannelPort } from './connection-types.ts';
import type { SubscribeId } from './link.ts';
import type { Command, ServerFrame, SubscribeEntry } from './protocol.ts';
import { inFrames } from './subscribe-frames.ts';

export const subscribeId: SubscribeId = 's';
/** That of every `unsubscribe`, as its answer names the channel. */
const unsubscribeId = 'u';

export class Subscriptions {
  /** Those that are in use. */
  readonly channels: Map<string, ChannelPort> = new Map();
  readonly #joining = new Set<ChannelPort>();
  /** Left over this link. What comes before the answer is of a subscription that was, and must move no position. */
  readonly #leaving = new Set<string>();
  /** Does nothing while there is no link that takes commands: `begin` follows when there is one. */
  readonly #send: (command: Command) => void;

  constructor(send: (command: Command) => void) {
    this.#send = send;
  }

  /** There is a link, over which nothing is subscribed. */
  begin(): void {
    this.#leaving.clear();
    this.#ask(this.channels.values());
  }

  /** All that are in one moment share a frame. */
  join(channel: ChannelPort): void {
    if (this.#joining.size === 0) queueMicrotask(() => this.#ask(this.#joining));
    this.#joining.add(channel);
  }

  leave(channel: string): void {
    // The answer may come at once.
    this.#leaving.add(channel);
    this.#send({ type: 'unsubscribe', id: unsubscribeId, channel });
  }

  /** Whose frame it is: undefined for the connection's own, null for one that has come too late. */
  recipient(frame: ServerFrame & { readonly channel?: string; readonly id?: unknown }): ChannelPort | undefined | null {
    const name = frame.channel as string;
    const channel = this.channels.get(name);
    if (!this.#leaving.has(name)) return channel;
    if (frame.id === unsubscribeId && this.#leaving.delete(name) && channel) this.join(channel);
    return null;
  }

  #ask(channels: Iterable<ChannelPort>): void {
    const entries: SubscribeEntry[] = [];
    for (const channel of channels) {
      const entry = !this.#leaving.has(channel.name) && channel.entry();
      if (entry) entries.push(entry);
    }
    this.#joining.clear();
    for (const part of inFrames(entries)) this.#send({ type: 'subscribe', id: subscribeId, channels: part });
  }
}
