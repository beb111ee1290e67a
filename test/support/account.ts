// The books of a load: what was accepted, what each reader got, and whether the two agree. A reader must have every
// accepted publication exactly once and in order, unless it was told a gap in whose place the missing one stood; the
// same position must hold the same publication for every reader of every node.

import type { Position } from '../../src/protocol/position.ts';
import type { Frame } from './clients.ts';

interface Gap {
  readonly channel: string;
  readonly from: Position;
  readonly to: Position;
  readonly reason: string;
}

/** What a reader had not received at the last look, of so many that had been accepted first. */
interface Look {
  readonly without: readonly string[];
  readonly accepted: number;
}

interface Accepted {
  readonly channel: string;
  /** Undefined for rows: their writer is not told. */
  readonly position: Position | undefined;
}

export class Account {
  readonly ledgers: Ledger[] = [];
  readonly faults: string[] = [];
  readonly #accepted = new Map<string, Accepted>();
  /** Ids in the order in which they were accepted first. */
  readonly #order: string[] = [];
  readonly #attempted = new Set<string>();
  /** `channel epoch offset` → the publication's id, as the first reader or publisher told it. */
  readonly #places = new Map<string, string>();
  readonly #placeOf = new Map<string, string>();
  readonly #looks = new Map<Ledger, Look>();
  /** Those of a channel's log, in the order in which they were first told: a log has one after the other. */
  readonly #epochs = new Map<string, Set<string>>();

  ledger(name: string): Ledger {
    const ledger = new Ledger(name, this);
    this.ledgers.push(ledger);
    return ledger;
  }

  /** Its outcome is not known yet: from now on a reader may see it. */
  attempt(id: string): void {
    this.#attempted.add(id);
  }

  accept(id: string, channel: string, position?: Position): void {
    this.#attempted.add(id);
    if (!this.#accepted.has(id)) this.#order.push(id);
    this.#accepted.set(id, { channel, position });
    if (position !== undefined) this.place(channel, position, id);
  }

  /** It was rolled back after all. */
  refuse(id: string): void {
    this.#attempted.delete(id);
  }

  get accepted(): number {
    return this.#accepted.size;
  }

  get gaps(): readonly string[] {
    return this.ledgers.flatMap(({ name, gaps }) =>
      gaps.map(({ channel, from, to, reason }) => `${name} ${channel}: ${reason} ${text(from)} to ${text(to)}`),
    );
  }

  epoch(channel: string, epoch: string): void {
    const known = this.#epochs.get(channel);
    if (known === undefined) this.#epochs.set(channel, new Set([epoch]));
    else known.add(epoch);
  }

  /** The log of the channel had the one epoch before the other. */
  cameBefore(channel: string, epoch: string, other: string): boolean {
    const all = [...(this.#epochs.get(channel) ?? [])];
    const [at, otherAt] = [all.indexOf(epoch), all.indexOf(other)];
    return at !== -1 && at < otherAt;
  }

  place(channel: string, position: Position, id: string): void {
    this.epoch(channel, position.epoch);
    const key = `${channel} ${text(position)}`;
    const known = this.#places.get(key);
    if (known === undefined) {
      this.#places.set(key, id);
      this.#placeOf.set(id, key);
    } else if (known !== id) this.faults.push(`${key} is ${known} for one and ${id} for another`);
  }

  /** What readers lack and no gap excuses, the first few of each. */
  missing(): string[] {
    return this.ledgers.flatMap((ledger) => {
      const lacking = this.#lacking(ledger);
      const first = lacking
        .slice(0, 5)
        .map(([id, { channel }]) => `${channel} ${id} at ${this.#placeOf.get(id) ?? 'no place'}`);
      return lacking.length === 0 ? [] : [`${ledger.name} lacks ${lacking.length}: ${first.join(', ')}`];
    });
  }

  /** Of what any reader lacks. */
  missingIds(): string[] {
    return [...new Set(this.ledgers.flatMap((ledger) => this.#lacking(ledger).map(([id]) => id)))];
  }

  /** How many messages of how many readers these are. */
  missingCount(): number {
    return this.ledgers.reduce((sum, ledger) => sum + this.#lacking(ledger).length, 0);
  }

  /**
   * Looks only at what the reader was without at the last look, and at what was accepted since: what was received once stays
   * so. It is asked every few milliseconds, in the process whose proxies and readers carry what it waits for.
   */
  #lacking(ledger: Ledger): [string, Accepted][] {
    const last = this.#looks.get(ledger) ?? { without: [], accepted: 0 };
    const without: string[] = [];
    const lacking: [string, Accepted][] = [];
    const look = (id: string): void => {
      const accepted = this.#accepted.get(id)!;
      const { channel, position } = accepted;
      if (ledger.has(channel, id)) return;
      without.push(id);
      if (ledger.reads(channel) && !ledger.excuses(channel, position ?? parsePlace(this.#placeOf.get(id))))
        lacking.push([id, accepted]);
    };
    for (const id of last.without) look(id);
    for (let index = last.accepted; index < this.#order.length; index++) look(this.#order[index]!);
    this.#looks.set(ledger, { without, accepted: this.#order.length });
    return lacking;
  }

  /** What can never become right by waiting. */
  wrong(): string[] {
    const phantoms = this.ledgers.flatMap(({ name, ids }) =>
      [...ids].filter((id) => !this.#attempted.has(id)).map((id) => `${name} got ${id}, which was never published`),
    );
    return [...this.faults, ...this.ledgers.flatMap(({ faults }) => faults), ...phantoms];
  }
}

/** What one reader got, over all of its connections. */
export class Ledger {
  readonly name: string;
  readonly faults: string[] = [];
  readonly gaps: Gap[] = [];
  readonly positions = new Map<string, Position>();
  readonly #account: Account;
  readonly #received = new Map<string, Set<string>>();

  constructor(name: string, account: Account) {
    this.name = name;
    this.#account = account;
  }

  reads(channel: string): boolean {
    return this.positions.has(channel);
  }

  has(channel: string, id: string): boolean {
    for (const [key, ids] of this.#received) if (key.startsWith(`${channel} `) && ids.has(id)) return true;
    return false;
  }

  get ids(): ReadonlySet<string> {
    return new Set([...this.#received.values()].flatMap((ids) => [...ids]));
  }

  get count(): number {
    let count = 0;
    for (const ids of this.#received.values()) count += ids.size;
    return count;
  }

  countOf(channel: string): number {
    let count = 0;
    for (const [key, ids] of this.#received) if (key.startsWith(`${channel} `)) count += ids.size;
    return count;
  }

  /** A change of the epoch stands for all epochs in between too: the log may have had one that this reader never saw. */
  excuses(channel: string, at: Position | undefined): boolean {
    const gaps = this.gaps.filter((gap) => gap.channel === channel);
    if (at === undefined) return gaps.length > 0;
    return gaps.some(({ from, to }) => {
      const after = at.epoch === from.epoch && at.offset > from.offset;
      const before = at.epoch === to.epoch && at.offset <= to.offset;
      if (from.epoch === to.epoch) return after && before;
      const within =
        this.#account.cameBefore(channel, from.epoch, at.epoch) &&
        this.#account.cameBefore(channel, at.epoch, to.epoch);
      return after || before || within;
    });
  }

  /** The first position fixes where the reader starts; later ones are only told. */
  begin(channel: string, { epoch = '', offset = 0 }: Frame): void {
    this.#account.epoch(channel, epoch);
    if (!this.positions.has(channel)) this.positions.set(channel, { epoch, offset });
  }

  gap({ channel = '', epoch = '', offset = 0, reason = '' }: Frame): void {
    const to = { epoch, offset };
    this.#account.epoch(channel, epoch);
    this.gaps.push({ channel, from: this.positions.get(channel) ?? to, to, reason });
    this.positions.set(channel, to);
  }

  message({ channel = '', offset = 0, data }: Frame): void {
    const before = this.positions.get(channel);
    const id = idOf(data);
    if (before === undefined) {
      this.faults.push(`${this.name} ${channel}: ${id} came before the subscription`);
      return;
    }
    if (offset !== before.offset + 1) {
      this.faults.push(`${this.name} ${channel}: ${id} came with offset ${offset} after ${text(before)}`);
    }
    const position = { epoch: before.epoch, offset };
    this.positions.set(channel, position);
    this.#account.place(channel, position, id);
    const key = `${channel} ${before.epoch}`;
    const ids = this.#received.get(key) ?? new Set();
    this.#received.set(key, ids);
    if (ids.has(id)) this.faults.push(`${this.name} ${channel}: ${id} came twice`);
    ids.add(id);
  }
}

/** A publication's own id, or the one in the row of a table change. */
function idOf(data: unknown): string {
  const { id, data: row } = data as { id?: string; data?: { id?: string } | null };
  return id ?? row?.id ?? JSON.stringify(data);
}

function text({ epoch, offset }: Position): string {
  return `${epoch}:${offset}`;
}

function parsePlace(key: string | undefined): Position | undefined {
  if (key === undefined) return undefined;
  const place = key.slice(key.indexOf(' ') + 1);
  const colon = place.lastIndexOf(':');
  return { epoch: place.slice(0, colon), offset: Number(place.slice(colon + 1)) };
}
