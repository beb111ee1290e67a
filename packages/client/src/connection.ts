// The one connection of a client, kept alive: connects when somebody needs it, chooses the transport, gets tokens,
// notices a dead link, leaves a draining server, waits between attempts, and ends for good only where a code says so.
// It knows which channels are wanted and asks for all of them in one frame; what is in them is the channels' affair.
//
// One loop does it all: token, link, end, verdict, pause, again.

import type {
  ChannelPort,
  ConnectionEvents,
  ConnectionOptions,
  ConnectionStatus,
  LinkContext,
} from './connection-types.ts';
import { SobranieError } from './errors.ts';
import { Emitter, type Stop } from './emitter.ts';
import type { Checks } from './link-check.ts';
import type { Link, LinkEnd, TransportName } from './link.ts';
import { Requests, type RequestOptions } from './requests.ts';
import { subscribeId, Subscriptions } from './subscriptions.ts';
import { openingMs, openMs } from './opening-time.ts';
import { verdictOf } from './verdict.ts';
import type { Command, ErrorFrame, ServerFrame, Welcome } from './protocol.ts';

/** A link answers a question whether it lives within this time. */
const probeMs = 5_000;
/** A token function that does not answer must not keep the client offline for ever. */
const tokenMs = 30_000;
/** An event stream brings something at least every 20 s. */
const streamQuietMs = 21_000;
/** A connection that lived as long was a good one: the pauses begin anew. */
const provenMs = 10_000;
/** Who leaves a page for another one needs the connection again at once. */
const idleMs = 5_000;

export class Connection extends Emitter<ConnectionEvents> {
  readonly #options: ConnectionOptions;
  readonly #requests: Requests;
  readonly #subscriptions = new Subscriptions((command) => {
    if (this.#isReady) this.#link?.send(command);
  });
  /** Those that are in use. */
  readonly channels: Map<string, ChannelPort> = this.#subscriptions.channels;
  #status: ConnectionStatus = { state: 'idle' };
  #isRunning = false;
  /** Connected though nothing needs it. */
  #isKept = false;
  #link: Link | undefined;
  /** Commands may be sent over the link. */
  #isReady = false;
  /** Ends the present link, or the attempt at one. */
  #cut: ((end: LinkEnd) => void) | undefined;
  /** Ends the present pause. */
  #resume: Stop | undefined;
  /** The pause may be cut short. */
  #mayHurry = true;
  #idle: Stop | undefined;
  #tries = 0;
  #welcomedAt: number | undefined;
  #beatMs = 25_000;
  /** The server has refused the last token; the next one is the last attempt. */
  #isDoubted = false;
  #refusal: ErrorFrame | undefined;
  /** The first transport has worked before. */
  #hasWorked = false;
  #failedOpenings = 0;
  #isFallenBack = false;
  /** The server is leaving, and has told when: its end needs no further pause. */
  #isDraining = false;
  readonly #checks: Checks = { count: 0 };
  /** Since a link fell silent; none has yet. */
  #openings = Infinity;

  constructor(options: ConnectionOptions) {
    super();
    this.#options = options;
    this.#requests = new Requests(options.clock, (command) => {
      if (this.#status.state === 'connected') this.#link?.send(command);
    });
  }

  get status(): ConnectionStatus {
    return this.#status;
  }

  /** Connects and stays so, though no channel is wanted. After a failure for good it begins anew. */
  connect(): void {
    this.#isKept = true;
    if (this.#isClosed) this.reconnect();
    this.#start();
  }

  /** Leaves the present connection for another one, with a fresh token. */
  reconnect(): void {
    for (const channel of this.channels.values()) channel.reset();
    this.#tries = 0;
    if (this.#isClosed) this.#set({ state: 'idle' });
    this.#again('reconnect');
    this.#resume?.();
    this.#start();
  }

  /** Ends everything; what waits for an answer is rejected with `error`. */
  close(error: SobranieError = new SobranieError('closed')): void {
    const isFailure = error.code !== 'closed';
    this.#isKept = false;
    this.#set({ state: 'closed', ...(isFailure && { error }) });
    this.#again('closed');
    this.#resume?.();
    this.#requests.fail(error);
    if (!isFailure) return;
    for (const channel of this.channels.values()) channel.refused(error);
    this.emit('error', error);
  }

  /** The channel is wanted, or wanted otherwise than before. All that are in one moment share a frame. */
  join(channel: ChannelPort): void {
    this.#start();
    this.#subscriptions.join(channel);
  }

  leave(channel: string): void {
    this.#subscriptions.leave(channel);
    this.#rest();
  }

  /**
   * Sends a command as soon as there is a link, again if the link is lost before the answer or the server says later.
   * Rejects with what the server refused it for, with `timeout`, with `closed`, or with the signal's reason.
   */
  async request<Frame extends ServerFrame>(
    command: Command,
    options: RequestOptions = {},
    mayRepeat: () => boolean = () => true,
  ): Promise<Frame> {
    if (this.#isClosed) throw this.#status.error ?? new SobranieError('closed');
    const answer = this.#requests.add<Frame>(command, options, mayRepeat, () => this.#rest());
    this.#start();
    return answer;
  }

  get #isClosed(): boolean {
    return this.#status.state === 'closed';
  }
  get #isNeeded(): boolean {
    return this.#isKept || this.#requests.size > 0 || [...this.channels.values()].some((channel) => channel.entry());
  }

  // The loop

  #start(): void {
    this.#idle?.();
    if (this.#isRunning || this.#isClosed) return;
    this.#isRunning = true;
    // The caller finishes what it began first.
    queueMicrotask(() => void this.#run());
  }

  async #run(): Promise<void> {
    const { clock, transports, log } = this.#options;
    const stopWatching = clock.watch(
      () => this.#tick(),
      (online) => this.#wake(online),
    );
    while (this.#isNeeded && !this.#isClosed) {
      const transport = transports[this.#isFallenBack ? 1 : 0] ?? 'sse';
      this.#set({ ...this.#status, state: 'connecting', transport });
      const end = await this.#live(transport);
      log(`end ${end.code} ${end.reason}`);
      const wasReady = this.#isReady;
      this.#isReady = false;
      this.#link = this.#cut = undefined;
      // First: a channel that is lost does not know any more whether it keeps keys.
      this.#requests.lost();
      for (const channel of this.channels.values()) channel.lost();
      if (end.reason === 'silent') this.#openings = 0;
      if (!this.#isClosed) await this.#judge(end, wasReady);
    }
    stopWatching();
    this.#isRunning = false;
    if (this.#isClosed) return;
    this.#set({ state: 'idle' });
    // Somebody may have come while this one was leaving.
    if (this.#isNeeded) this.#start();
  }

  /** One link from its beginning to its end. */
  async #live(transport: TransportName): Promise<LinkEnd> {
    const { clock, openLink } = this.#options;
    let resolve: (end: LinkEnd) => void = () => undefined;
    const promise = new Promise<LinkEnd>((settle) => (resolve = settle));
    let link: Link | undefined;
    let isOver = false;
    const over = (end: LinkEnd): void => {
      isOver = true;
      stop();
      link?.close();
      resolve(end);
    };
    let stop = clock.after(tokenMs, () => over({ code: 0, reason: 'no token' }));
    this.#cut = over;
    this.#refusal = this.#welcomedAt = undefined;
    this.#isDraining = false;
    try {
      // Of one that is no text the server says what is wrong with it.
      const token = (await Promise.race([this.#token(), promise])) as string | undefined;
      if (isOver) return await promise;
      stop();
      stop = clock.after(openingMs(transport, this.#openings++), () => over({ code: 1006, reason: 'timeout' }));
      const opened = await openLink(transport, {
        token,
        positionOf: (channel) => this.channels.get(channel)?.position,
        onReady: () => {
          this.#isReady = true;
          this.#subscriptions.begin();
        },
        onFrame: (frame) => {
          if (isOver) return;
          if (frame.type === 'welcome') stop();
          this.#receive(frame);
        },
        onPause: () => {
          stop();
          if (!isOver) this.#set({ ...this.#status, state: 'connecting' });
        },
        onEnd: over,
      });
      if (isOver) opened.close();
      else this.#link = link = opened;
      // It may have been ready before it was here.
      this.#subscriptions.begin();
    } catch (error) {
      over({ code: 0, reason: String(error) });
    }
    return promise;
  }

  async #token(): Promise<string | undefined> {
    return (await this.#options.token?.()) ?? undefined;
  }

  /** What an end means: nothing more to try, the other transport, or a pause. */
  async #judge(end: LinkEnd, wasReady: boolean): Promise<void> {
    const { clock, token, transports, backoffMs } = this.#options;
    const livedMs = clock.now() - (this.#welcomedAt ?? Infinity);
    if (livedMs > provenMs) this.#tries = 0;
    const { error, waitMs, isLater } = verdictOf(end, this.#refusal, !!token && !this.#isDoubted);
    if (error.code === 'unauthorized') this.#isDoubted = true;
    // What was too large is not sent again, so it does not end the next link.
    if (!error.retryable && !(end.code === 1009 && this.#requests.dropLargest())) return this.close(error);

    let isSwitched = false;
    if (transports[1] && end.code === 1006 && !this.#welcomedAt) {
      if (this.#isFallenBack) this.#isFallenBack = false;
      // One that has worked before is more likely to have lost its server than to have met a proxy.
      else isSwitched = this.#isFallenBack = !wasReady && ++this.#failedOpenings >= (this.#hasWorked ? 3 : 1);
    }
    this.#status = { ...this.#status, error };
    // At once, but never in a circle.
    const isCircle = this.#isDraining && livedMs < 1_000;
    if (isSwitched || ((end.again || this.#isDraining) && !isCircle)) return;
    if (end.reason === 'token_expired' && this.#tries++ === 0) return;
    this.#set({ ...this.#status, state: 'waiting' });
    this.emit('error', error);
    const windowMs = isLater ? 30_000 : (backoffMs[Math.min(this.#tries++, backoffMs.length - 1)] ?? 0);
    this.#mayHurry = !isLater;
    await new Promise<void>((resolve) => {
      const stop = clock.after(waitMs + clock.random(windowMs), resolve);
      this.#resume = () => {
        stop();
        resolve();
      };
    });
  }

  /** Nobody needs the connection: it ends after a moment in which somebody might. */
  #rest(): void {
    if (this.#isNeeded || !this.#isRunning) return;
    this.#idle?.();
    this.#idle = this.#options.clock.after(idleMs, () => {
      if (this.#isNeeded) return;
      this.#again('idle');
      this.#resume?.();
    });
  }

  #again(reason: string): void {
    this.#cut?.({ code: 1000, reason, again: true });
  }

  #set(status: ConnectionStatus): void {
    this.#status = status;
    this.#options.log(`${status.state} ${status.transport ?? ''} ${status.error?.message ?? ''}`);
    this.emit('status', status);
  }

  // Is it alive?

  #tick(): void {
    const link = this.#link;
    if (!link || !this.#isReady) return;
    const silence = link.silence();
    if (silence > 2 * this.#beatMs) this.#again('silent');
    else if (silence > this.#beatMs) link.send({ type: 'ping' });
  }

  /** The page is back, or the network: whoever waits tries at once, and a link has to show that it lives. */
  #wake(online: boolean): void {
    const link = this.#link;
    if (online) this.#isFallenBack = false;
    if (this.#mayHurry) this.#resume?.();
    if (this.#status.state !== 'connected' || !link) return;
    const silence = link.silence();
    // Streams cannot be asked; a new one is soon made.
    if (link.transport === 'sse') return online || silence > streamQuietMs ? this.#again('silent') : undefined;
    const { clock } = this.#options;
    const askedAt = clock.now();
    link.send({ type: 'ping' });
    // Dead is who has said nothing since, but for the clock's own small errors.
    clock.after(probeMs, () => {
      if (this.#link === link && clock.now() - link.silence() <= askedAt - silence + 0.01) this.#again('silent');
    });
  }

  // Frames

  #receive(frame: ServerFrame): void {
    if (this.#requests.answer(frame)) return;
    const channel = this.#subscriptions.recipient(frame);
    if (channel === null) return;
    if (frame.type === 'error') this.#refused(frame, channel);
    else if (frame.type === 'welcome') this.#welcome(frame);
    else if (frame.type === 'drain') {
      const link = this.#link;
      this.#isDraining = true;
      this.#options.clock.after(frame.after, () => {
        if (this.#link === link) this.#again('drain');
      });
    } else if (channel) channel.receive(frame);
    else if (frame.type === 'message') this.emit('message', frame);
  }

  #welcome({ connection, user, heartbeat, transport: carrier }: Welcome): void {
    const { clock, transports } = this.#options;
    const transport = this.#link?.transport;
    this.#welcomedAt = clock.now();
    this.#beatMs = Math.min(heartbeat, 25) * 1_000;
    this.#isDoubted = false;
    if (transport === transports[0]) {
      this.#hasWorked = true;
      this.#failedOpenings = this.#checks.count = 0;
    } else {
      if (this.#checks.count === 0 && this.#status.error) this.emit('fallback', this.#status.error);
      void this.#checkFirst();
    }
    this.#set({ state: 'connected', transport: carrier ?? transport, user, connection });
    this.#requests.sendAll();
  }

  #refused(frame: ErrorFrame, channel: ChannelPort | undefined): void {
    const error = new SobranieError(frame.code, frame);
    if (channel && frame.id === subscribeId) channel.refused(error);
    else if (frame.expires) void this.#refresh();
    else {
      this.#refusal = frame;
      if (this.#welcomedAt) this.emit('error', error);
    }
  }

  /** Before the token ends. If it cannot be had now, it is asked for again until the server ends the connection. */
  async #refresh(): Promise<void> {
    const { clock } = this.#options;
    const link = this.#link;
    try {
      const token = await this.#token();
      if (token !== undefined && this.#link === link) await this.request({ type: 'refresh', token }, {}, () => false);
    } catch (cause) {
      if (this.#link !== link || this.#isClosed) return;
      this.emit('error', new SobranieError('token_expired', { retryable: true, cause, message: 'no fresh token' }));
      clock.after(1_000 + clock.random(2_000), () => {
        if (this.#link === link) void this.#refresh();
      });
    }
  }

  /** The second transport was a way out, and perhaps only because the server was away for a moment. */
  async #checkFirst(): Promise<void> {
    const { clock, openLink, transports } = this.#options;
    const link = this.#link;
    // It is here already: the second transport is made of it.
    const { untilOpens } = await import('./stream-link.ts');
    const isOver = (): boolean => this.#link !== link;
    const open = (context: LinkContext): Promise<Link> => openLink(transports[0] ?? 'sse', context);
    if (!(await untilOpens(open, () => this.#token(), clock, openMs, this.#checks, isOver))) return;
    this.#isFallenBack = false;
    this.#again('better transport');
  }
}
