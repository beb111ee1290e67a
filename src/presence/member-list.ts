// The members of a channel, by connection. Most channels have a few, and a map of the language takes half a kilobyte for
// the first of them. Up to sixteen members stand in one list; more become such a map. Keeps the order in which
// connections came first.

export const fewMax = 16;

export class MemberList<Member extends { readonly connection: string }> {
  #few: Member[] | undefined = [];
  #many: Map<string, Member> | undefined;

  get size(): number {
    return this.#many?.size ?? this.#few?.length ?? 0;
  }

  get(connection: string): Member | undefined {
    if (this.#many !== undefined) return this.#many.get(connection);
    return this.#few?.find((member) => member.connection === connection);
  }

  has(connection: string): boolean {
    return this.get(connection) !== undefined;
  }

  /** Takes the place of another one of the connection. */
  set(member: Member): void {
    const few = this.#few;
    if (few === undefined) {
      this.#many?.set(member.connection, member);
      return;
    }
    const at = this.#find(member.connection);
    if (at !== -1) few[at] = member;
    else if (few.length < fewMax) few.push(member);
    else {
      this.#many = new Map([...few, member].map((each) => [each.connection, each]));
      this.#few = undefined;
    }
  }

  delete(connection: string): boolean {
    if (this.#many !== undefined) return this.#many.delete(connection);
    const at = this.#find(connection);
    if (at === -1) return false;
    this.#few?.splice(at, 1);
    return true;
  }

  values(): Iterable<Member> {
    return this.#many?.values() ?? this.#few ?? [];
  }

  #find(connection: string): number {
    return this.#few?.findIndex((member) => member.connection === connection) ?? -1;
  }
}
