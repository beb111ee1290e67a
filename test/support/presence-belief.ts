// What a client believes about who is in a channel: kept as a page would keep it, by a list and the pushes after it, and
// judged strictly.

import type { Member, PresenceChangeFrame, PresenceFrame } from '../../src/protocol/frames.ts';

export class Belief {
  readonly faults: string[] = [];
  /** By connection; undefined before the first list. */
  #members: Map<string, Member> | undefined;
  #version = 0;

  get connections(): string[] | undefined {
    return this.#members && [...this.#members.keys()].toSorted();
  }

  list({ members, count, version }: PresenceFrame): void {
    this.#members = new Map(members.map((member) => [member.connection, member]));
    this.#version = version;
    if (this.#members.size !== members.length) this.faults.push('a list names a connection twice');
    if (count !== members.length) this.faults.push(`a list of ${members.length} counts ${count}`);
  }

  push({ type, member, left, version }: PresenceChangeFrame): void {
    const members = this.#members;
    // Before its first list a page ignores what it hears: the list has it.
    if (members === undefined) return;
    // Where there are many listeners, what the list has already may follow it.
    if (version <= this.#version) return;
    if (version !== this.#version + 1) this.faults.push(`${type} ${version} comes after ${this.#version}`);
    this.#version = version;
    const { user, connection } = member;
    const isOfUser = (other: Member): boolean =>
      user === null ? other.connection === connection : other.user === user;
    const isHere = [...members.values()].some(isOfUser);
    if (type === 'join' && isHere) this.faults.push(`${user} joins, and is here`);
    if (type !== 'join' && !isHere) this.faults.push(`${type} of ${user}, who is not here`);
    if (left !== undefined && !members.delete(left)) this.faults.push(`${left} left, and was not here`);
    if (type === 'leave') members.delete(connection);
    else members.set(connection, member);
    const remains = [...members.values()].some(isOfUser);
    if (type === 'leave' && remains) this.faults.push(`${user} leaves, and others of the user stay`);
  }
}
