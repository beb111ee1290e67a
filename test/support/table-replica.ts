// A table as a subscriber of its channel knows it.

export type Row = Record<string, unknown>;

/** A column that comes and goes is no part of what is compared. */
export function rowText(row: Row): string {
  return JSON.stringify(
    Object.entries(row)
      .filter(([name]) => name !== 'more')
      .toSorted(([one], [other]) => one.localeCompare(other)),
  );
}

/** What a subscriber of a channel knows, from its messages alone. Throws where one does not continue the others. */
export class TableReplica {
  readonly #rows = new Map<string, Row[]>();
  readonly #key: readonly string[];

  constructor(key: readonly string[]) {
    this.#key = key;
  }

  get all(): string[] {
    return [...this.#rows.values()].flat().map(rowText);
  }

  apply({ action, data, old }: Row): void {
    if (action === 'TRUNCATE') this.#rows.clear();
    if (action === 'DELETE' || action === 'UPDATE') this.#take(old as Row);
    if (action === 'INSERT' || action === 'UPDATE') this.#put(data as Row);
  }

  #placeOf(row: Row): string {
    return rowText(this.#key.length === 0 ? row : Object.fromEntries(this.#key.map((name) => [name, row[name]])));
  }

  #take(old: Row): void {
    const place = this.#placeOf(old);
    const [row, ...others] = this.#rows.get(place) ?? [];
    if (row === undefined) throw new Error('a row goes that was not there');
    const known = Object.fromEntries(Object.keys(old).map((name) => [name, row[name]]));
    if (rowText(known) !== rowText(old)) throw new Error('a row goes that was another one');
    if (others.length === 0) this.#rows.delete(place);
    else this.#rows.set(place, others);
  }

  #put(row: Row): void {
    const place = this.#placeOf(row);
    const rows = this.#rows.get(place) ?? [];
    if (this.#key.length > 0 && rows.length > 0) throw new Error('a row comes that is there');
    this.#rows.set(place, [...rows, row]);
  }
}
