// The newest entries of channels. A crowd on a thousand channels asks for each of them twice: where the channel stands when it
// is opened, and again with what was missed. One question is under way at a time, and all that is asked for meanwhile is the
// next: of 64 channels at most, as an entry may have 64 kB. One alone is asked for at once.

import type { Entry } from './message.ts';

/** An entry, or why it cannot be read. */
export type Tried = { readonly subject: string } & (
  { readonly entry: Entry; readonly error?: never } | { readonly entry?: never; readonly error: unknown }
);

export interface NewestEntriesOptions {
  readonly one: (subject: string) => Promise<Entry | undefined>;
  /** Of subjects without one nothing is answered. */
  readonly many: (subjects: readonly string[]) => Promise<readonly Tried[]>;
}

interface Asked {
  readonly resolve: (entry: Entry | undefined) => void;
  readonly reject: (error: unknown) => void;
}

const atOnceMax = 64;

export class NewestEntries {
  readonly #options: NewestEntriesOptions;
  readonly #asked = new Map<string, Asked[]>();
  #asking = false;

  constructor(options: NewestEntriesOptions) {
    this.#options = options;
  }

  ask(subject: string): Promise<Entry | undefined> {
    return new Promise((resolve, reject) => {
      const asked = this.#asked.get(subject) ?? [];
      asked.push({ resolve, reject });
      this.#asked.set(subject, asked);
      if (this.#asking) return;
      this.#asking = true;
      queueMicrotask(() => void this.#run());
    });
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    while (this.#asked.size > 0) {
      const asked = new Map([...this.#asked].slice(0, atOnceMax));
      for (const subject of asked.keys()) this.#asked.delete(subject);
      try {
        const answers = await this.#answers([...asked.keys()]);
        for (const [subject, waiting] of asked) {
          const { entry, error } = answers.get(subject) ?? {};
          for (const { resolve, reject } of waiting) {
            if (error === undefined) resolve(entry);
            else reject(error);
          }
        }
      } catch (error) {
        for (const waiting of asked.values()) for (const { reject } of waiting) reject(error);
      }
      // Who was answered may ask for the next channel: those go together.
      await new Promise(setImmediate);
    }
    this.#asking = false;
  }

  async #answers(subjects: readonly string[]): Promise<Map<string, Tried>> {
    const [only] = subjects;
    if (subjects.length > 1 || only === undefined) {
      return new Map((await this.#options.many(subjects)).map((tried) => [tried.subject, tried]));
    }
    const entry = await this.#options.one(only);
    return new Map(entry === undefined ? [] : [[only, { subject: only, entry }]]);
  }
}
