// What streams that recover are sent alike. After a deploy thousands of them stand at the same place and lack the same
// publications, so their events are the same bytes, ids included. Once a second stream is sent them they are kept for some
// seconds. Until then they live as long as the first one holds them: those that stand where nobody else does take no memory.
//
// An id is a cursor, which says where its stream stands in all of its channels. Of publications of one channel the ids differ
// in that channel's offset alone, so the last one tells what those before it are. Streams that stand elsewhere in any of their
// channels have other ids, and other bytes.

import type { Publication } from '../core/publication.ts';
import { SharedChunk } from './shared-chunk.ts';

interface Recovered {
  readonly publications: readonly Publication[];
  /** Undefined while one stream alone was sent them. */
  readonly chunk: SharedChunk | undefined;
  /** Their bytes as that one holds them until it is through with them; undefined once they are kept. */
  readonly first: WeakRef<Uint8Array> | undefined;
  /** The second in which it was made. */
  readonly second: number;
}

/** A storm takes no longer. */
const secondsMax = 5;
/** What comes past it is made for each stream, until there is room again. */
const bytesMax = 32 << 20;
const overheadBytes = 500;
const none: readonly Publication[] = [];

/** What bytes that are not kept were made of. */
const madeOf = new WeakMap<Uint8Array, readonly Publication[]>();

export class RecoveredEvents {
  /** By the id of the last event. The first was made longest ago. */
  readonly #made = new Map<string, Recovered>();
  #bytes = 0;
  #second = 0;

  /** Bytes that all of it takes, about. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The events of publications of one channel, of which `id` is the last one's. `make` answers their text. */
  chunk(id: string, publications: readonly Publication[], make: () => string): SharedChunk {
    const found = this.#made.get(id);
    if (found?.chunk !== undefined && areSame(found.publications, publications)) return found.chunk;
    const chunk = new SharedChunk(made(found, publications) ?? make());
    const second = this.#second;
    if (found === undefined) {
      madeOf.set(chunk.plain, publications);
      this.#keep(id, { publications: none, chunk: undefined, first: new WeakRef(chunk.plain), second });
    } else {
      // It was noted, or what was kept has been read again.
      this.#forget(id, found);
      this.#keep(id, { publications, chunk, first: undefined, second });
    }
    return chunk;
  }

  /** To be called each second. */
  sweep(): void {
    this.#second++;
    for (const [id, recovered] of this.#made) {
      if (this.#second - recovered.second < secondsMax) break;
      this.#forget(id, recovered);
    }
  }

  #keep(id: string, recovered: Recovered): void {
    const bytes = bytesOf(recovered);
    if (this.#bytes + bytes > bytesMax) return;
    this.#made.set(id, recovered);
    this.#bytes += bytes;
  }

  #forget(id: string, recovered: Recovered): void {
    this.#made.delete(id);
    this.#bytes -= bytesOf(recovered);
  }
}

/** The bytes that the first stream still holds, if they are the same. */
function made(found: Recovered | undefined, publications: readonly Publication[]): Uint8Array | undefined {
  const bytes = found?.first?.deref();
  const of = bytes === undefined ? undefined : madeOf.get(bytes);
  return of !== undefined && areSame(of, publications) ? bytes : undefined;
}

/** The same objects. A stream may lack one of them, which it asked not to hear or has among its rows. */
function areSame(some: readonly Publication[], others: readonly Publication[]): boolean {
  return some.length === others.length && some.every((publication, index) => publication === others[index]);
}

/** Publications are held too, and what is compressed is smaller than they are. */
function bytesOf({ chunk }: Recovered): number {
  return (chunk?.plain.byteLength ?? 0) * 2 + overheadBytes;
}
