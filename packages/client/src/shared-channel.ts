// A channel that several tabs share, in the tab that leads: subscribed once, told to all. Each tab keeps a position of its
// own and drops what it has; this one remembers a little of what came, so that a tab that comes late goes on where it was.

import type { ChannelPort } from './connection-types.ts';
import type { SobranieError } from './errors.ts';
import type { SubscribeId } from './link.ts';
import type { Message, Position, ServerFrame, SubscribeEntry, SubscriptionState } from './protocol.ts';

/** A tab by its id. */
export type TellTab = (tab: string, frame: ServerFrame) => void;

const subscribeId: SubscribeId = 's';
const recentMax = 1_000;

export class SharedChannel implements ChannelPort {
  readonly name: string;
  position: Position | undefined;
  readonly #tell: TellTab;
  /** What each tab subscribed with. */
  readonly #tabs = new Map<string, SubscribeEntry>();
  /** The tabs that wait for the first answer. */
  readonly #waiting = new Set<string>();
  #state: SubscriptionState | undefined;
  #recent: Message[] = [];

  constructor(name: string, tell: TellTab) {
    this.name = name;
    this.#tell = tell;
  }

  get isUsed(): boolean {
    return this.#tabs.size > 0;
  }

  /** True when the server has to be asked. */
  subscribe(tab: string, entry: SubscribeEntry): boolean {
    this.#tabs.set(tab, entry);
    const { since, snapshot, presence } = entry;
    if (this.#state === undefined) {
      this.#waiting.add(tab);
      // The first to be asked for is the oldest: tabs that are further on drop what they have.
      const before = this.position;
      if (since && (!before || (before.epoch === since.epoch && since.offset < before.offset))) this.position = since;
      return true;
    }
    this.#answer(tab, this.#state);
    return snapshot === true || presence !== undefined;
  }

  unsubscribe(tab: string): void {
    this.#tabs.delete(tab);
    this.#waiting.delete(tab);
  }

  entry(): SubscribeEntry | undefined {
    const entries = [...this.#tabs.values()];
    if (entries.length === 0) return undefined;
    const snapshot = entries.some((entry) => entry.snapshot) || undefined;
    const presence = entries.find((entry) => entry.presence !== undefined)?.presence;
    return { channel: this.name, since: snapshot ? undefined : this.position, snapshot, presence };
  }

  receive(frame: ServerFrame): void {
    switch (frame.type) {
      case 'subscribed':
        if (frame.id === undefined) return;
        this.#state = frame;
        if (frame.recovered === undefined) this.#move(frame);
        for (const tab of this.#waiting) this.#answer(tab, frame);
        this.#waiting.clear();
        return;
      case 'message':
        if (frame.offset !== undefined && this.position !== undefined) {
          if (frame.offset <= this.position.offset) return;
          this.position = { epoch: this.position.epoch, offset: frame.offset };
          this.#recent.push(frame);
          if (this.#recent.length > recentMax) this.#recent.splice(0, recentMax / 2);
        }
        break;
      case 'gap':
        this.#move(frame);
        this.#recent = [];
        break;
      case 'snapshot':
        for (const [tab, entry] of this.#tabs) {
          if (entry.snapshot === undefined) continue;
          if (!frame.more) this.#tabs.set(tab, { ...entry, snapshot: undefined });
          this.#tell(tab, frame);
        }
        if (!frame.more && (this.#recent.at(-1)?.offset ?? 0) <= frame.offset) this.#move(frame);
        return;
      case 'unsubscribed':
        this.#state = undefined;
        break;
      case 'presence':
      case 'join':
      case 'leave':
      case 'update':
        break;
      case 'welcome':
      case 'published':
      case 'history':
      case 'refreshed':
      case 'pong':
      case 'ping':
      case 'drain':
      case 'error':
        // The connection's, not a channel's.
        return;
    }
    for (const tab of this.#tabs.keys()) this.#tell(tab, frame);
  }

  refused({ code, message, retryable, retryAfter }: SobranieError): void {
    const error = { code: code as 'forbidden', message, retryable, ...(retryAfter && { retryAfter }) };
    for (const tab of this.#tabs.keys()) this.#tell(tab, { type: 'error', channel: this.name, ...error });
    // Tabs that were refused for now ask again.
    this.#tabs.clear();
    this.#waiting.clear();
  }

  lost(): void {
    // The subscription comes back by itself, at its position.
  }

  reset(): void {
    // As above.
  }

  /** As the server would answer a tab that says where it stands. */
  #answer(tab: string, state: SubscriptionState): void {
    const since = this.#tabs.get(tab)?.since;
    const { position, name } = this;
    const { recoverable } = state;
    const head = { type: 'subscribed', id: subscribeId, channel: name, recoverable, ...position } as const;
    if (since === undefined || position === undefined) return this.#tell(tab, head);
    const isSame = since.epoch === position.epoch;
    const recent = this.#recent.filter(({ offset = 0 }) => offset > since.offset);
    const isWhole = since.offset + recent.length >= position.offset;
    const recovered = isSame && (isWhole || this.#waiting.has(tab));
    this.#tell(tab, { ...head, recovered });
    if (!recovered)
      this.#tell(tab, { type: 'gap', channel: name, ...position, reason: isSame ? 'trimmed' : 'epoch_changed' });
    else if (!this.#waiting.has(tab)) for (const message of recent) this.#tell(tab, message);
  }

  #move({ epoch, offset }: SubscriptionState | Position): void {
    this.position = epoch === undefined || offset === undefined ? undefined : { epoch, offset };
  }
}
