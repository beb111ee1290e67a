// Presence as it is, with a look at who becomes a member and who is one no more.

import type { Entrant, Presence } from '../core/presence.ts';
import type { PresenceList } from '../protocol/frames.ts';
import type { Subjects } from './subjects.ts';

export class HookedPresence implements Presence {
  readonly #presence: Presence;
  readonly #subjects: Subjects;

  constructor(presence: Presence, subjects: Subjects) {
    this.#presence = presence;
    this.#subjects = subjects;
  }

  async enter(entrant: Entrant, channel: string, data: string, membersMax: number): Promise<void> {
    const wasIn = this.#presence.has(entrant.id, channel);
    await this.#presence.enter(entrant, channel, data, membersMax);
    // It may have left again while it was entered.
    if (!wasIn && this.#presence.has(entrant.id, channel)) this.#subjects.member(channel, whoIs(entrant), true);
  }

  hear(entrant: Entrant, channel: string): void {
    this.#presence.hear(entrant, channel);
  }

  has(connection: string, channel: string): boolean {
    return this.#presence.has(connection, channel);
  }

  leave(entrant: Entrant, channel: string): void {
    if (this.has(entrant.id, channel)) this.#subjects.member(channel, whoIs(entrant), false);
    this.#presence.leave(entrant, channel);
  }

  part(entrant: Entrant, channel: string): void {
    if (this.has(entrant.id, channel)) this.#subjects.member(channel, whoIs(entrant), false);
    this.#presence.part(entrant, channel);
  }

  list(channel: string, limit: number): PresenceList | Promise<PresenceList> {
    return this.#presence.list(channel, limit);
  }
}

function whoIs({ id, identity }: Entrant): string {
  return identity.user === null ? `c:${id}` : `u:${identity.user}`;
}
