// What a broker has pushed and nobody has asked for yet: bounded, as whoever pushes waits for room.

export class PushBuffer<Item> {
  readonly #max: number;
  #items: Item[] = [];
  #failure: { readonly error: unknown } | undefined;
  #filled: (() => void) | undefined;
  #emptied: (() => void) | undefined;

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#items.length;
  }

  /** Nobody waits for room: for a broker that pushes no more than it was told to. */
  add(item: Item): void {
    this.#items.push(item);
    this.#filled?.();
  }

  /** Resolves when there is room for the next one, or nobody will take any more. */
  async push(item: Item): Promise<void> {
    this.add(item);
    while (this.#items.length >= this.#max && this.#failure === undefined) {
      await new Promise<void>((resolve) => (this.#emptied = resolve));
    }
  }

  /** Nothing more comes. The first reason counts. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#filled?.();
    this.#emptied?.();
  }

  /** All that is there, at most so many, at least one. Waits for it; rejects when nothing more comes. */
  async take(): Promise<readonly Item[]> {
    while (this.#items.length === 0 && this.#failure === undefined) {
      await new Promise<void>((resolve) => (this.#filled = resolve));
    }
    // What came before a failure comes again: the next reader begins at the mark.
    if (this.#failure !== undefined) throw this.#failure.error;
    const taken = this.#items.splice(0, this.#max);
    this.#emptied?.();
    return taken;
  }
}
