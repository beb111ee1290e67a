// A channel as the application holds it: who listens, where it stands in the log, and what may be asked about it.
// Subscribed while somebody listens; the position moves in three places only, as the protocol says: the first
// `subscribed`, each `message`, each `gap` (and with a snapshot, whose rows are true at a position).

import type {
  ChannelEvents,
  ChannelHost,
  ChannelState,
  HistoryOptions,
  PublishOptions,
  SubscribeOptions,
} from './channel-types.ts';
import type { ChannelPort } from './connection-types.ts';
import { Emitter, type Listener, type Stop } from './emitter.ts';
import { SobranieError } from './errors.ts';
import { quietly } from './platform.ts';
import { Presence } from './presence.ts';
import type {
  Gap,
  History,
  Message,
  Position,
  Published,
  ServerFrame,
  SubscribeEntry,
  SubscriptionState,
} from './protocol.ts';

/** A component that is mounted again at once keeps its subscription. */
const lingerMs = 250;
const queueMax = 10_000;

/** One who iterates. */
interface Reader {
  /** The loop was left. */
  isOver?: true;
  /** Ends the wait for the next event. */
  wake?: () => void;
}

interface Unread<Event> {
  readonly event: Event;
  readonly before: Position | undefined;
}

/** A channel: subscribed while somebody listens, at one position for all who do. `client.channel` makes it. */
export class Channel<Data = unknown> implements ChannelPort {
  readonly name: string;
  /** Who is in the channel. */
  readonly presence: Presence;
  readonly #host: ChannelHost;
  readonly #events = new Emitter<ChannelEvents<Data>>();
  /** Of those who iterate: the position that is kept has to wait for them. */
  readonly #queues = new Set<Unread<unknown>[]>();
  /** Where the channel stood before the event that is told now. */
  #before: Position | undefined;
  #listeners = 0;
  #linger: Stop | undefined;
  #retry: Stop | undefined;
  #retries = 0;
  #state: ChannelState = 'idle';
  #error: SobranieError | undefined;
  #position: Position | undefined;
  #wantsRows = false;
  /** The newest offset that came since the subscription became live. */
  #newest = 0;

  /** Made by `client.channel`. */
  constructor(name: string, host: ChannelHost) {
    this.name = name;
    this.#host = host;
    this.presence = new Presence(this, host.connection, host.clock);
  }

  get state(): ChannelState {
    return this.#state;
  }

  /** Why the channel failed; undefined while it has not. */
  get error(): SobranieError | undefined {
    return this.#state === 'failed' ? this.#error : undefined;
  }

  /** Where the client stands in the channel's log; undefined on ephemeral channels and before the first answer. */
  get position(): Position | undefined {
    return this.#position;
  }

  /**
   * Calls `listener` with each message from now on, in order and once, over lost connections too.
   * What could not be kept up with is told to `onGap`.
   *
   * @example
   * const stop = client.channel('chat:42').subscribe(({ data }) => show(data), { onGap: reload });
   */
  subscribe(listener: Listener<Message<Data>>, { signal, since, onGap }: SubscribeOptions = {}): Stop {
    const stops = [this.on('message', listener), this.hold(since)];
    if (onGap) stops.push(this.on('gap', onGap));
    const stop = (): void => {
      for (const each of stops.splice(0)) each();
      signal?.removeEventListener('abort', stop);
    };
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop);
    return stop;
  }

  /** Listens to one kind of event, without subscribing. A channel that nobody subscribes to or holds forgets its listeners. */
  on<Name extends keyof ChannelEvents<Data>>(name: Name, listener: Listener<ChannelEvents<Data>[Name]>): Stop {
    return this.#events.on(name, listener);
  }

  /**
   * Publishes `data`; resolves with its position once the server has accepted it, undefined on an ephemeral channel.
   * Repeats itself over a lost connection, with a key that makes the repeat harmless.
   * Rejects with a `SobranieError`, such as `forbidden`, `too_large`, `timeout`.
   *
   * @example
   * await client.channel('chat:42').publish({ text: 'hello' });
   */
  async publish(data: Data, options: PublishOptions = {}): Promise<Position | undefined> {
    const { clock } = this.#host;
    const { key = `${clock.random(1)}${clock.random(1)}`, echo, to, ...rest } = options;
    const command = { type: 'publish', channel: this.name, data, echo, key, to } as const;
    // An ephemeral channel keeps no keys: there a repeat would come twice.
    const isKept = (): boolean => to === undefined && !(this.#state === 'live' && !this.#position);
    const { epoch, offset } = await this.#host.connection.request<Published>(command, rest, isKept);
    return positionOf(epoch, offset);
  }

  /**
   * Reads kept messages, in ascending order. `complete` says that nothing is missing between `since` and the head.
   *
   * @example
   * const { messages } = await client.channel('chat:42').history({ limit: 50 });
   */
  history({ since, before, limit, ...options }: HistoryOptions = {}): Promise<History<Data>> {
    return this.#host.connection.request({ type: 'history', channel: this.name, since, before, limit }, options);
  }

  /**
   * Messages and gaps, as they come, for `for await`. Ends when the loop is left; rejects when the server refuses.
   *
   * @example
   * for await (const event of client.channel('posts')) {
   *   if (event.type === 'gap') await reload();
   *   else apply(event.data);
   * }
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<Data> | Gap> {
    return this.events();
  }

  /**
   * As iterating over the channel itself, until `signal` aborts.
   *
   * @example
   * for await (const event of client.channel('posts').events({ signal: AbortSignal.timeout(60_000) })) show(event);
   */
  events(options: Omit<SubscribeOptions, 'onGap'> = {}): AsyncIterableIterator<Message<Data> | Gap> {
    const reader: Reader = {};
    const events = this.#read(reader, options);
    // By itself a generator ends only once the event has come that it waits for.
    for (const name of ['return', 'throw'] as const) {
      const end = events[name].bind(events);
      events[name] = (value?: unknown) => {
        reader.isOver = true;
        reader.wake?.();
        return end(value);
      };
    }
    return events;
  }

  async *#read(reader: Reader, { signal, since }: SubscribeOptions): AsyncGenerator<Message<Data> | Gap, unknown> {
    const queue: Unread<Message<Data> | Gap>[] = [];
    let failure = this.error;
    const wake = (): void => reader.wake?.();
    const push = (event: Message<Data> | Gap): void => {
      queue.push({ event, before: this.#before });
      // Nobody may be so far behind for ever; a reader that is learns so. The first is being read.
      if (queue.length > queueMax && this.#position) {
        queue.splice(1);
        push({ type: 'gap', channel: this.name, ...this.#position, reason: 'overflow' });
      }
      wake();
    };
    const stops = [
      this.on('gap', push),
      this.on('failed', (error) => {
        failure = error;
        wake();
      }),
      this.subscribe(push, { since }),
    ];
    signal?.addEventListener('abort', wake);
    this.#queues.add(queue);
    try {
      while (!signal?.aborted && !reader.isOver) {
        const [next] = queue;
        if (next) {
          yield next.event;
          queue.shift();
          this.#store();
        } else if (failure) throw failure;
        else await new Promise<void>((resolve) => (reader.wake = resolve));
      }
    } finally {
      this.#queues.delete(queue);
      signal?.removeEventListener('abort', wake);
      for (const stop of stops) stop();
    }
    return undefined;
  }

  // For the parts of this package

  /** Subscribed as long as anybody holds it. */
  hold(since?: Position): Stop {
    this.#linger?.();
    this.#linger = undefined;
    if (this.#listeners++ === 0 && this.#state === 'idle') {
      this.#position = since ?? this.#stored();
      this.#join();
    }
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      if (--this.#listeners > 0) return;
      this.#linger = this.#host.clock.after(lingerMs, () => this.#leave());
    };
  }

  /** Asks for the rows that the channel describes; they come as `snapshot` events. */
  askForRows(): void {
    this.#wantsRows = true;
    if (this.#state !== 'idle') this.#join();
  }

  renew(leaves: boolean): void {
    if (this.#listeners === 0) return;
    // To leave is to unsubscribe; the position stays.
    if (leaves) this.#host.connection.leave(this.name);
    this.#join();
  }

  entry(): SubscribeEntry | undefined {
    if (this.#listeners === 0 || this.#state === 'failed') return undefined;
    const rows = this.#wantsRows ? (true as const) : undefined;
    // Rows begin a new story; what came before them is of no interest.
    return {
      channel: this.name,
      since: rows ? undefined : this.#position,
      snapshot: rows,
      presence: this.presence.entry,
    };
  }

  /** What is not a channel's own is the connection's. */
  receive(frame: ServerFrame): void {
    if (frame.type === 'message') this.#message(frame as Message<Data>);
    else if (frame.type === 'subscribed') this.#subscribed(frame);
    else if (frame.type === 'gap') {
      this.#move(frame);
      this.#events.emit('gap', frame);
      this.#store();
    } else if (frame.type === 'snapshot') {
      if (!frame.more) {
        this.#wantsRows = false;
        // Messages go on right after the rows, unless newer ones are here already.
        if (this.#newest <= frame.offset) this.#move(frame);
      }
      this.#events.emit('snapshot', frame);
      this.#store();
    } else if (frame.type === 'unsubscribed') {
      if (!frame.reason) return;
      const { reason, channel } = frame;
      this.refused(new SobranieError(reason, { channel, retryable: reason === 'unavailable' }));
    } else if (frame.type === 'presence') this.presence.replace(frame);
    else if ('member' in frame) {
      this.presence.apply(frame);
      this.#events.emit(frame.type, frame.member);
    }
  }

  refused(error: SobranieError): void {
    if (this.#listeners === 0) return;
    if (error.retryable) {
      const waitMs =
        (error.retryAfter ?? 0) * 1_000 + this.#host.clock.random(Math.min(10_000, 500 * 2 ** this.#retries++));
      this.#setState('joining');
      this.#retry?.();
      this.#retry = this.#host.clock.after(waitMs, () => this.#join());
      return;
    }
    const { connection } = this.#host;
    // One that has ended for good says so itself, once for all channels.
    const isOpen = connection.status.state !== 'closed';
    // These may concern what the others would see of this client: without it the channel may be heard.
    if (isOpen && /forbidden|large|limit/.test(error.code) && this.presence.refuse()) {
      connection.emit('error', error);
      return this.#join();
    }
    this.#error = error;
    this.#setState('failed');
    this.#events.emit('failed', error);
    if (isOpen) connection.emit('error', error);
  }

  lost(): void {
    this.#retry?.();
    if (this.#state === 'live') this.#setState('joining');
  }

  reset(): void {
    if (this.#state === 'failed') this.#setState('joining');
  }

  #join(): void {
    if (this.#state !== 'live') this.#setState('joining');
    this.#host.connection.channels.set(this.name, this);
    this.#host.connection.join(this);
  }

  #leave(): void {
    this.#retry?.();
    const { connection, storage, storageKey } = this.#host;
    connection.channels.delete(this.name);
    if (this.#state !== 'failed') connection.leave(this.name);
    this.#position = undefined;
    this.#wantsRows = false;
    this.#setState('idle');
    quietly(() => storage?.removeItem(storageKey(this.name)));
  }

  #subscribed(frame: SubscriptionState & { readonly id?: unknown }): void {
    const { id, epoch, offset, recovered } = frame;
    // The server may subscribe a connection by itself, from now on. This client has asked for more: what it missed.
    if (id === undefined) return;
    this.#retries = 0;
    this.#newest = 0;
    // With a position sent, what it promises has yet to come, and moves the position itself.
    if (recovered === undefined) this.#move(positionOf(epoch, offset));
    this.#setState('live');
    this.presence.refresh();
    this.#events.emit('subscribed', frame);
    this.#store();
  }

  #message(message: Message<Data>): void {
    const { offset } = message;
    const position = this.#position;
    if (offset && position) {
      // Streams that replace one another may both bring it.
      if (offset <= position.offset) return;
      this.#move({ epoch: position.epoch, offset });
      this.#newest = offset;
    }
    this.#events.emit('message', message);
    this.#store();
  }

  #move(position: Position | undefined): void {
    this.#before = this.#position;
    this.#position = position && { epoch: position.epoch, offset: position.offset };
  }

  #setState(state: ChannelState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#events.emit('state', state);
  }

  // Over a reload of the page

  #stored(): Position | undefined {
    const { storage, storageKey } = this.#host;
    const kept = quietly(() => storage?.getItem(storageKey(this.name))) ?? '';
    const [, epoch, offset] = /^(\S+) (\d+)$/.exec(kept) ?? [];
    return positionOf(epoch, offset);
  }

  /** What was handed over and taken is what will not come again. */
  #store(): void {
    const { storage, storageKey } = this.#host;
    let kept = this.#position;
    if (!storage || !kept) return;
    for (const [first] of this.#queues) {
      const before = first?.before;
      if (before && (before.epoch !== kept.epoch || before.offset < kept.offset)) kept = before;
    }
    const { epoch, offset } = kept;
    quietly(() => storage.setItem(storageKey(this.name), `${epoch} ${offset}`));
  }
}

function positionOf(epoch: string | undefined, offset: number | string | undefined): Position | undefined {
  return epoch ? { epoch, offset: Number(offset) } : undefined;
}
