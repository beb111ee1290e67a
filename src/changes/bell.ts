// A wait that can be cut short: by a notification, or by closing.

export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;
  #rings = 0;

  /** How often it was rung since it was made. */
  get rings(): number {
    return this.#rings;
  }

  /** Ends the present wait, or the next one before it begins. */
  ring(): void {
    this.#rings++;
    this.#rung = true;
    this.#wake?.();
  }

  /** Forgets the rings so far: the read that follows covers what they announced. */
  hush(): void {
    this.#rung = false;
  }

  /** Waits for a ring, at most this long. One waiter at a time. */
  async wait(milliseconds: number): Promise<void> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    this.#rung = false;
  }
}
