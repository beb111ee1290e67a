// A link over server-sent events and HTTP, for networks that let no WebSocket pass: streams bring the frames, requests
// carry the commands. Streams are read by fetch and not by EventSource, which sends no token, hides the status of a
// refusal and reconnects at its own will.
//
// A stream has its channels for life and takes 50 of them at most. When the wanted channels change, the streams whose
// part of them has changed are opened anew, each at the client's positions, so nothing is lost in between.

import { cursorOf } from './cursor.ts';
import type { Stop } from './emitter.ts';
import type { Link, LinkEnd, LinkOptions, SubscribeId } from './link.ts';
import type { Command, ErrorFrame, Position, ServerFrame, SubscribeEntry } from './protocol.ts';

export { untilOpens } from './link-check.ts';

type Fetch = (url: string, init?: RequestInit) => Promise<Response>;

interface Stream {
  readonly abort: AbortController;
  readonly channels: readonly string[];
  heardAt: number;
}

/** What a stream with a channel that is no name, or may not be heard, is answered. */
const refusals = [400, 403];
const subscribeId: SubscribeId = 's';
const channelsMax = 50;
/** Any other name would be none, or several, in the list of a stream's channels. */
const listable = /^[^,]+$/;
/** Channels that are wanted in one moment share a stream. */
const gatherMs = 10;

export class StreamLink implements Link {
  readonly transport = 'sse';
  readonly #fetch: Fetch;
  readonly #options: LinkOptions;
  readonly #requests = new AbortController();
  readonly #wanted = new Map<string, SubscribeEntry>();
  /** By the query that opened them. */
  readonly #streams = new Map<string, Stream>();
  #token: string | undefined;
  #planned: Stop | undefined;
  /** Over any stream, or in answer to a look. */
  #heardAt: number;
  #isLooking = false;
  #welcomed = false;
  #ended = false;

  constructor(fetch: Fetch, options: LinkOptions) {
    this.#fetch = fetch;
    this.#options = options;
    this.#token = options.token;
    this.#heardAt = options.clock.now();
    // As a socket would: not before its owner has it.
    options.clock.after(0, () => {
      if (this.#ended) return;
      options.onReady();
      this.#look();
    });
  }

  send(command: Command): void {
    switch (command.type) {
      case 'subscribe':
        for (const entry of command.channels) {
          // The answer comes with a stream's beginning, so one that has the channel begins anew.
          this.#drop(entry.channel);
          if (listable.test(entry.channel)) this.#wanted.set(entry.channel, entry);
          else this.#refuse(entry.channel, { code: 'bad_channel', message: 'bad_channel', retryable: false });
        }
        return this.#plan();
      case 'unsubscribe':
        this.#wanted.delete(command.channel);
        this.#drop(command.channel);
        this.#plan();
        return this.#options.onFrame({ ...command, type: 'unsubscribed' });
      case 'refresh':
        // The streams end with the old token, and those that follow them have this one.
        this.#token = command.token;
        return this.#options.onFrame({ ...command, type: 'refreshed' });
      case 'ping':
        return this.#look();
      case 'publish': {
        const { channel, data, key, to, id } = command;
        // By HTTP everyone in the channel would get it.
        if (to !== undefined) {
          const error = { code: 'bad_request', message: '"to" needs a WebSocket', retryable: false };
          return this.#options.onFrame({ ...error, type: 'error', id } as ServerFrame);
        }
        return void this.#request(command, 'published', '/realtime/publish', { channel, data, key });
      }
      case 'history':
      case 'presence': {
        const { type, channel, limit } = command;
        const { epoch, offset } = ('since' in command && command.since) || ({} as Partial<Position>);
        const before = 'before' in command ? command.before : undefined;
        const query = queryOf({ limit, epoch, offset, before });
        return void this.#request(command, type, `/realtime/channels/${encodeURIComponent(channel)}/${type}${query}`);
      }
    }
  }

  silence(): number {
    const heardAt = Math.min(...Array.from(this.#streams.values(), (stream) => stream.heardAt));
    return this.#options.clock.now() - (this.#streams.size === 0 ? this.#heardAt : heardAt);
  }

  close(): void {
    this.#ended = true;
    this.#planned?.();
    this.#requests.abort();
    for (const { abort } of this.#streams.values()) abort.abort();
  }

  #end(end: LinkEnd): void {
    if (this.#ended) return;
    this.close();
    this.#options.onEnd(end);
  }

  #welcome(frame: ServerFrame): void {
    if (!this.#welcomed) this.#options.onFrame(frame);
    this.#welcomed = true;
  }

  /** With nothing to hear there is no stream. Then a small request tells whether there is a server. */
  #look(): void {
    if (this.#isLooking || this.#wanted.size > 0) return;
    this.#isLooking = true;
    const lost = (): void => this.#end({ code: 1006, reason: '' });
    const answered = ({ status }: Response): void => {
      // Of a gateway: nobody stands behind it.
      if (status >= 500) return lost();
      this.#isLooking = false;
      this.#heardAt = this.#options.clock.now();
      if (this.#wanted.size === 0)
        this.#welcome({ type: 'welcome', connection: '', user: null, node: '', heartbeat: 25 });
    };
    this.#call('/realtime/publish', { method: 'HEAD', signal: this.#requests.signal }).then(answered).catch(lost);
  }

  #drop(channel: string): void {
    for (const [query, { abort, channels }] of this.#streams) {
      if (!channels.includes(channel)) continue;
      this.#streams.delete(query);
      abort.abort();
    }
  }

  #plan(): void {
    this.#planned ??= this.#options.clock.after(gatherMs, () => {
      this.#planned = undefined;
      const plan = this.#queries();
      for (const [query, { abort }] of this.#streams) {
        if (plan.has(query)) continue;
        this.#streams.delete(query);
        abort.abort();
      }
      for (const [query, channels] of plan) if (!this.#streams.has(query)) void this.#read(query, channels);
    });
  }

  /** Which streams there should be: channels that are asked for in the same way go together. */
  #queries(): Map<string, string[]> {
    const plan = new Map<string, string[]>();
    const groups = new Map<string, string[]>();
    const close = (way: string, channels: string[]): void => {
      plan.set(`${way}&channels=${encodeURIComponent(channels.join())}`, channels);
      groups.delete(way);
    };
    for (const { channel, presence, snapshot } of this.#wanted.values()) {
      const way = queryOf({ ping: 1, presence: presence ? 1 : undefined, snapshot: snapshot && 1 });
      const channels = groups.get(way) ?? [];
      groups.set(way, channels);
      if (channels.push(channel) === channelsMax) close(way, channels);
    }
    for (const [way, channels] of groups) close(way, channels);
    return plan;
  }

  async #read(query: string, channels: string[]): Promise<void> {
    const { clock, parse, positionOf } = this.#options;
    const stream = { abort: new AbortController(), channels, heardAt: clock.now() };
    this.#streams.set(query, stream);
    const isCurrent = (): boolean => this.#streams.get(query) === stream && !this.#ended;
    let end: LinkEnd = { code: 1006, reason: '' };
    try {
      const positions = new Map<string, Position>();
      for (const channel of channels) {
        const since = this.#wanted.get(channel)?.snapshot ? undefined : positionOf(channel);
        if (since) positions.set(channel, since);
      }
      const since = cursorOf(positions);
      const path = `/realtime/events${query}${since ? `&since=${since}` : ''}`;
      const response = await this.#call(path, { signal: stream.abort.signal });
      if (!response.ok) {
        const error = await errorOf(response);
        if (!isCurrent()) return;
        if (refusals.includes(response.status)) return await this.#refused(query, channels, error);
        end = endOf(error);
      } else {
        const reader = response.body?.getReader();
        const decoder = new TextDecoder();
        let text = '';
        for (;;) {
          const chunk = await reader?.read();
          if (!isCurrent()) return;
          if (!chunk?.value) break;
          this.#heardAt = stream.heardAt = clock.now();
          const events = (text + decoder.decode(chunk.value, { stream: true })).split('\n\n');
          text = events.pop() ?? '';
          for (const event of events) {
            const data = /^data: ?(.*)$/m.exec(event)?.[1];
            if (data) this.#take(parse(data) as ServerFrame);
            if (!isCurrent()) return;
          }
        }
      }
    } catch {
      // The network's own failure: its reasons are not told to pages.
    }
    if (isCurrent()) this.#end(end);
  }

  #take(frame: ServerFrame): void {
    // Its rows are here: should its stream be opened anew, it goes on after them.
    const wanted = frame.type === 'snapshot' && !frame.more && this.#wanted.get(frame.channel);
    if (wanted) this.#wanted.set(wanted.channel, { ...wanted, snapshot: undefined });
    if (frame.type !== 'welcome') return this.#options.onFrame(frame);
    this.#welcome(frame);
    for (const state of frame.channels ?? []) this.#options.onFrame({ type: 'subscribed', id: subscribeId, ...state });
  }

  /** All channels of a stream are refused with any of them, so each is asked for alone, to learn which. */
  async #refused(query: string, channels: string[], error: Omit<ErrorFrame, 'type'>): Promise<void> {
    const way = query.slice(0, query.indexOf('&channels='));
    let found = 0;
    for (const channel of channels) {
      const abort = new AbortController();
      const path = `/realtime/events${way}&channels=${encodeURIComponent(channel)}`;
      const { status } = await this.#call(path, { signal: abort.signal });
      abort.abort();
      if (this.#ended) return;
      if (!refusals.includes(status)) continue;
      found++;
      this.#wanted.delete(channel);
      this.#refuse(channel, error);
    }
    this.#streams.delete(query);
    if (found > 0) this.#plan();
    else this.#end({ code: 1006, reason: error.code });
  }

  #refuse(channel: string, error: Omit<ErrorFrame, 'type'>): void {
    this.#options.onFrame({ ...error, type: 'error', id: subscribeId, channel });
  }

  async #request(command: Command, type: string, path: string, body?: unknown): Promise<void> {
    let answer: object;
    try {
      const init = body ? { method: 'POST', body: this.#options.print(body) } : {};
      const response = await this.#call(path, { ...init, signal: this.#requests.signal });
      answer = response.ok
        ? { type, ...(this.#options.parse(await response.text()) as object) }
        : { type: 'error', ...(await errorOf(response)) };
    } catch {
      // As a WebSocket would: the link is lost, and what was not answered is sent again over the next.
      return this.#end({ code: 1006, reason: '' });
    }
    if (!this.#ended) this.#options.onFrame({ ...answer, id: command.id } as ServerFrame);
  }

  #call(path: string, init: RequestInit): Promise<Response> {
    const headers: Record<string, string> = init.body ? { 'content-type': 'application/json' } : {};
    if (this.#token) headers['authorization'] = `Bearer ${this.#token}`;
    return this.#fetch(this.#options.url + path, { ...init, headers });
  }
}

function queryOf(members: Readonly<Record<string, string | number | undefined>>): string {
  const given = Object.entries(members).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`;
}

async function errorOf(response: Response): Promise<Omit<ErrorFrame, 'type'>> {
  const body = (await response.json().catch(() => ({}))) as { error?: ErrorFrame };
  const retryAfter = Number(response.headers.get('retry-after')) || undefined;
  const code = response.status >= 500 ? 'unavailable' : 'bad_request';
  return {
    code,
    message: `HTTP ${response.status}`,
    retryable: response.status >= 500 || response.status === 429,
    ...(retryAfter && { retryAfter }),
    ...body.error,
  };
}

/** What a WebSocket would have been closed with. */
function endOf({ code, retryAfter }: Omit<ErrorFrame, 'type'>): LinkEnd {
  const isToken = code === 'unauthorized' || code === 'token_expired';
  return {
    code: isToken ? 1008 : code === 'shutting_down' ? 1001 : 1013,
    reason: code,
    retryAfterMs: retryAfter && retryAfter * 1_000,
  };
}
