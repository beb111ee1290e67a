// A map for what is small nearly always: most channels have a few members, and a map of the language takes half a
// kilobyte for the first of them. Up to sixteen entries stand in one list; more become such a map. Keeps the order in which
// keys were set first.

const fewMax = 16;

export class SmallMap<Key, Value> {
  /** Keys and values in turns. */
  #few: (Key | Value)[] | undefined = [];
  #many: Map<Key, Value> | undefined;

  get size(): number {
    return this.#many?.size ?? (this.#few?.length ?? 0) / 2;
  }

  get(key: Key): Value | undefined {
    if (this.#many !== undefined) return this.#many.get(key);
    const at = this.#find(key);
    return at === -1 ? undefined : (this.#few?.[at + 1] as Value);
  }

  has(key: Key): boolean {
    return this.#many?.has(key) ?? this.#find(key) !== -1;
  }

  set(key: Key, value: Value): void {
    const few = this.#few;
    if (few === undefined) {
      this.#many?.set(key, value);
      return;
    }
    const at = this.#find(key);
    if (at !== -1) few[at + 1] = value;
    else if (few.length < 2 * fewMax) few.push(key, value);
    else {
      this.#many = new Map(this.entries());
      this.#many.set(key, value);
      this.#few = undefined;
    }
  }

  delete(key: Key): boolean {
    if (this.#many !== undefined) return this.#many.delete(key);
    const at = this.#find(key);
    if (at === -1) return false;
    this.#few?.splice(at, 2);
    return true;
  }

  *entries(): Generator<[Key, Value]> {
    if (this.#many !== undefined) {
      yield* this.#many;
      return;
    }
    const few = this.#few ?? [];
    for (let at = 0; at < few.length; at += 2) yield [few[at] as Key, few[at + 1] as Value];
  }

  *keys(): Generator<Key> {
    for (const [key] of this.entries()) yield key;
  }

  *values(): Generator<Value> {
    for (const [, value] of this.entries()) yield value;
  }

  #find(key: Key): number {
    const few = this.#few ?? [];
    for (let at = 0; at < few.length; at += 2) if (few[at] === key) return at;
    return -1;
  }
}
