// What one connection has told the page: the rows of the list, the position, and the counters that prove the delivery.
// Pure: no DOM, no network, no clock. Both columns have their own feed, so neither can hide what the other one missed.
//
// Lifecycle: subscribed -> loadStarted -> loaded -> messages …; a gap starts a new load.

const rowsMax = 50;
const arrivalsMax = 5_000;

export class Feed {
  position = null;
  received = 0;
  duplicates = 0;
  holes = 0;
  gaps = 0;
  lastGap = null;
  rows = new Map();
  loaded = false;

  #changed = new Set();
  #touched = null;
  #arrivals = new Map();
  #listener = () => {};
  #needsLoad = () => {};

  /** `needsLoad` is called when only the table can tell what the rows are: at first, after a gap or a TRUNCATE. */
  constructor({ needsLoad }) {
    this.#needsLoad = needsLoad;
  }

  onChange(listener) {
    this.#listener = listener;
  }

  /** The subscription is live. A resumed one keeps its own position: what it missed follows right behind it. */
  subscribed({ epoch, offset }) {
    if (this.position === null && offset !== undefined) this.position = { epoch, offset };
    if (!this.loaded && this.#touched === null) this.#needsLoad();
    this.#listener();
  }

  gap({ epoch, offset, reason }) {
    this.position = { epoch, offset };
    this.gaps += 1;
    this.lastGap = reason;
    this.#needsLoad();
    this.#listener();
  }

  /** Arrivals are counted before repeats are put aside: what came twice must show as twice. */
  message(frame) {
    this.received += 1;
    const isChange = isRowChange(frame.data);
    if (isChange && frame.data.action === 'INSERT') this.#countArrival(frame.data.data.id);
    if (!isChange) this.#countArrival(frame.offset);
    if (this.#advance(frame.offset)) {
      if (isChange) this.#applyChange(frame.data);
      else this.#applyPublication(frame);
      this.#trim();
    }
    this.#listener();
  }

  /** How often the insert of this row has arrived: what "exactly once" is judged by. */
  arrivalsOf(key) {
    return this.#arrivals.get(key) ?? 0;
  }

  loadStarted() {
    this.#touched = new Set();
  }

  /**
   * Takes the table as it was while the load ran. Rows that a message changed meanwhile keep what the message said,
   * unless the table was newer still: the messages of one row come in order, so the last one always settles it.
   */
  load(rows) {
    const touched = this.#touched ?? new Set();
    const listed = new Set(rows.map((row) => row.id));
    for (const id of this.rows.keys()) if (!listed.has(id) && !touched.has(id)) this.#remove(id);
    for (const row of rows) {
      const current = this.rows.get(row.id);
      if (touched.has(row.id) && (current === undefined || current.updated_at >= row.updated_at)) continue;
      if (current === undefined || JSON.stringify(current) !== JSON.stringify(row)) this.#set(row, this.loaded);
    }
    this.#touched = null;
    this.loaded = true;
    this.#trim();
    this.#listener();
  }

  /** The rows changed by messages since the last call, for the view to point out. */
  takeChanged() {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  /** False for what was seen before. A hole is counted and passed on: the page must show it, not paper over it. */
  #advance(offset) {
    if (offset === undefined || this.position === null) return true;
    if (offset <= this.position.offset) {
      this.duplicates += 1;
      return false;
    }
    this.holes += offset - this.position.offset - 1;
    this.position = { ...this.position, offset };
    return true;
  }

  #applyChange({ action, data, old }) {
    if (action === 'TRUNCATE') {
      for (const id of [...this.rows.keys()]) this.#remove(id);
      if (this.#touched !== null) this.#needsLoad();
      return;
    }
    const gone = action === 'DELETE' || (old?.id !== undefined && old.id !== data.id) ? old.id : undefined;
    if (gone !== undefined) this.#remove(gone);
    if (action !== 'DELETE') this.#set(data, true);
  }

  #applyPublication({ offset, data }) {
    const fields = typeof data === 'object' && data !== null ? data : { title: String(data) };
    this.#set(
      { id: offset ?? this.received, title: fields.title ?? JSON.stringify(data), body: fields.body ?? '' },
      true,
    );
  }

  #set(row, flash) {
    this.rows.set(row.id, row);
    this.#touched?.add(row.id);
    if (flash) this.#changed.add(row.id);
  }

  #remove(id) {
    this.rows.delete(id);
    this.#touched?.add(id);
    this.#changed.delete(id);
  }

  #trim() {
    if (this.rows.size <= rowsMax) return;
    const oldest = [...this.rows.keys()].sort((a, b) => a - b).slice(0, this.rows.size - rowsMax);
    for (const id of oldest) this.rows.delete(id);
  }

  #countArrival(key) {
    this.#arrivals.set(key, (this.#arrivals.get(key) ?? 0) + 1);
    if (this.#arrivals.size > arrivalsMax) this.#arrivals.delete(this.#arrivals.keys().next().value);
  }
}

function isRowChange(data) {
  return typeof data === 'object' && data !== null && typeof data.action === 'string' && 'table' in data;
}
