// What hooks are about, as this node has it: channels with subscribers, members of channels, users. Counts how many there
// are of each, and says which have changed and since when. Who goes away has a time of grace to come back, so that a
// reload, or a move to another node, is no event.

import type { Occupancy } from '../core/occupancy.ts';
import type { Clock } from '../time/clock.ts';

export interface Subject {
  readonly kind: 'channel' | 'member' | 'user';
  /** Empty for a user. */
  readonly channel: string;
  /** `u:<user>`, or `c:<connection>` of one without a user; empty for a channel. */
  readonly who: string;
}

interface Known extends Subject {
  count: number;
  /** What was told last. */
  isTold: boolean;
  /** It is being told something else, or that failed and nobody knows. */
  isInDoubt: boolean;
  /** Monotonic milliseconds at which its end counts; undefined while it is there. */
  endsAt: number | undefined;
}

export class Subjects implements Occupancy {
  readonly #graceMs: number;
  readonly #clock: Clock;
  readonly #known = new Map<string, Known>();
  /** Keys of those whose state may have to be told. */
  readonly #changed = new Set<string>();

  constructor(graceMs: number, clock: Clock) {
    this.#graceMs = graceMs;
    this.#clock = clock;
  }

  get size(): number {
    return this.#known.size;
  }

  channel(name: string, isOccupied: boolean): void {
    if (!name.startsWith('$')) this.#count({ kind: 'channel', channel: name, who: '' }, isOccupied);
  }

  user(user: string, isComing: boolean): void {
    this.#count({ kind: 'user', channel: '', who: `u:${user}` }, isComing);
  }

  member(channel: string, who: string, isComing: boolean): void {
    this.#count({ kind: 'member', channel, who }, isComing);
  }

  /** Those to be told now, each with whether it is there. `told` says that they were; without, they come again. */
  due(countMax: number): readonly { readonly subject: Subject; readonly isHere: boolean }[] {
    const now = this.#clock.monotonic();
    const due: { subject: Subject; isHere: boolean }[] = [];
    for (const key of this.#changed) {
      const known = this.#known.get(key);
      const isHere = known !== undefined && (known.endsAt === undefined || known.endsAt > now);
      if (known === undefined || (isHere === known.isTold && !known.isInDoubt)) {
        // It came back in time, or never was: nothing is to be told, unless it ends later.
        if (known?.endsAt === undefined) this.#changed.delete(key);
        continue;
      }
      known.isInDoubt = true;
      due.push({ subject: known, isHere });
      if (due.length === countMax) break;
    }
    return due;
  }

  told(told: readonly { readonly subject: Subject; readonly isHere: boolean }[]): void {
    for (const { subject, isHere } of told) {
      const key = keyOf(subject);
      const known = this.#known.get(key);
      if (known === undefined) continue;
      known.isTold = isHere;
      known.isInDoubt = false;
      if (isHere || known.count > 0) continue;
      this.#known.delete(key);
      this.#changed.delete(key);
    }
  }

  /** Nothing is known any more of what was told. */
  forgetTold(): void {
    for (const [key, known] of this.#known) {
      known.isTold = false;
      this.#changed.add(key);
    }
  }

  #count(subject: Subject, isComing: boolean): void {
    const key = keyOf(subject);
    const known = this.#known.get(key) ?? { ...subject, count: 0, isTold: false, isInDoubt: false, endsAt: undefined };
    known.count = Math.max(0, known.count + (isComing ? 1 : -1));
    if (known.count > 0) known.endsAt = undefined;
    else known.endsAt ??= this.#clock.monotonic() + this.#graceMs;
    this.#known.set(key, known);
    this.#changed.add(key);
    if (known.count === 0 && !known.isTold && !known.isInDoubt) {
      // It came and went between two looks.
      this.#known.delete(key);
      this.#changed.delete(key);
    }
  }
}

function keyOf({ kind, channel, who }: Subject): string {
  return `${kind} ${channel} ${who}`;
}
