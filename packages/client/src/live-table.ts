// A table as it is now: its rows at one moment, then every change, in order; loaded again where a change may have been
// missed; with the application's own writes shown before the server has them.
//
// The moment and the stream must meet: the channel is subscribed first, and what it brings is kept aside until the rows
// are here. Rows of the server's snapshot are true at a position, so only later changes count. Rows of the
// application's own `load` are true at a moment nobody knows, so every change counts that came since the subscription:
// applied again it does no harm, since the last change of each key is the row.

import type { Channel } from './channel.ts';
import { call, type Listener, type Stop } from './emitter.ts';
import { SobranieError } from './errors.ts';
import type { ChannelName, DataOf } from './names.ts';
import type { Change, Message } from './protocol.ts';
import type { Sobranie } from './sobranie.ts';

/**
 * `loading` until there are rows; `live` when they are those of the table; `stale` while the connection is away or rows
 * are loaded again after a gap; `failed` when the server refused; `idle` while nobody listens.
 */
export type LiveTableStatus = 'idle' | 'loading' | 'live' | 'stale' | 'failed';

/** Replaced by a new object whenever something in it changes. */
export interface LiveTableState<Row> {
  readonly rows: readonly Row[];
  readonly status: LiveTableStatus;
  readonly error: unknown;
}

export interface LiveTableOptions<Row> {
  /** What tells rows apart: a column, or a function of the row. */
  readonly key: (keyof Row & string) | ((row: Row) => string | number | bigint);
  /**
   * The rows as they are now, by a request of the application's own. Without it the server sends them, by the rule that
   * says which. Called again after a gap, and later when it fails.
   */
  readonly load?: (options: { readonly signal: AbortSignal }) => Promise<readonly Row[]>;
}

/** The row of a table whose channel carries this: of its changes, or of what was said to be its rows. */
export type RowOf<Data> = (Data extends Change<infer Row> ? Row : Data) extends infer Row extends object
  ? Row
  : Record<string, unknown>;

/** The last that is known of a key, and the offset that said so. */
interface Last<Row> {
  readonly row: Row | undefined;
  readonly offset: number;
}

/** A write of the application's own, shown until the server's word on that key takes its place. */
interface Draft<Row> {
  key: string;
  row: Row | undefined;
  isSent: boolean;
  /** What the server has published meanwhile says the same. */
  isSeen: boolean;
}

/** A write that is through is shown for so long at most, should the server never publish it. */
const draftMs = 10_000;
/** The server sends rows within this time. */
const rowsMs = 20_000;
const loadMs = 60_000;
/** Past 2^31 a timer runs at once. */
const loadMsMax = 3_600_000;
/** Listeners are called at most this often, however fast changes come. */
const notifyMs = 16;

/**
 * Follows a watched table. Nothing happens before somebody listens.
 *
 * @example
 * const orders = liveTable(client, 'orders', { key: 'id' });
 * orders.subscribe(({ rows, status }) => render(rows, status));
 */
export function liveTable<
  Channels extends object,
  Name extends ChannelName<Channels>,
  Row extends object = RowOf<DataOf<Channels, Name>>,
>(client: Sobranie<Channels>, channel: Name, options: LiveTableOptions<NoInfer<Row>>): LiveTable<Row> {
  return new LiveTable<Row>(client.channel(channel) as unknown as Channel<Change<Row>>, options);
}

/** Rows that are those of the table, and what the application writes. `liveTable` makes it. */
export class LiveTable<Row extends object> {
  readonly channel: Channel<Change<Row>>;
  readonly #options: LiveTableOptions<Row>;
  readonly #listeners = new Set<Listener<LiveTableState<Row>>>();
  #rows = new Map<string, Row>();
  /** Kept aside until the rows are here. */
  #changes: Map<string, Last<Row>> | undefined;
  #clearedAt: number | undefined;
  /** Of a snapshot in several frames. */
  #arriving: Row[] = [];
  readonly #drafts = new Set<Draft<Row>>();
  #state: LiveTableState<Row> = { rows: [], status: 'idle', error: undefined };
  #isChanged = false;
  #isDue = false;
  #hasRows = false;
  #loading: AbortController | undefined;
  #failures = 0;
  #stop: Stop | undefined;

  /** Made by `liveTable`. */
  constructor(channel: Channel<Change<Row>>, options: LiveTableOptions<Row>) {
    this.channel = channel;
    this.#options = options;
  }

  /** The rows as they are now, the application's own writes included; the same array until something changes. */
  get rows(): readonly Row[] {
    return this.state.rows;
  }

  get status(): LiveTableStatus {
    return this.state.status;
  }

  /** Rows, status and error together; the same object until something changes. */
  get state(): LiveTableState<Row> {
    if (this.#isChanged) {
      this.#isChanged = false;
      this.#state = { ...this.#state, rows: this.#merged() };
    }
    return this.#state;
  }

  /**
   * Follows the table, and calls `listener` after changes, at most some sixty times a second; after an own write at once.
   *
   * @example
   * const stop = orders.subscribe(({ rows, status }) => render(rows, status));
   */
  subscribe(listener: Listener<LiveTableState<Row>>): Stop {
    // A new function for each, so that the same listener may listen twice.
    const own: Listener<LiveTableState<Row>> = (state) => listener(state);
    this.#listeners.add(own);
    if (this.#listeners.size === 1) this.#start();
    return () => {
      if (this.#listeners.delete(own) && this.#listeners.size === 0) this.#end();
    };
  }

  /**
   * Shows `row` at once and runs `write`, such as a request to the backend. If it fails the row is as before and the
   * error is thrown; else the row stays until the server publishes its own. A `write` that resolves with the row as it
   * was stored may give it another key, as an insert does.
   *
   * @example
   * await orders.put({ ...order, status: 'sent' }, () => api.send(order.id));
   */
  put<Result>(row: Row, write: () => Promise<Result>): Promise<Result> {
    return this.#write({ key: this.#keyOf(row), row, isSent: false, isSeen: false }, write);
  }

  /** Hides the row at once and runs `write`, which deletes it; otherwise as `put`. */
  remove<Result>(row: Row, write: () => Promise<Result>): Promise<Result> {
    return this.#write({ key: this.#keyOf(row), row: undefined, isSent: false, isSeen: false }, write);
  }

  async #write<Result>(draft: Draft<Row>, write: () => Promise<Result>): Promise<Result> {
    this.#drafts.add(draft);
    this.#isChanged = true;
    // At once: a field that is bound to the row would show its old value for a moment, and lose the place of its cursor.
    this.#tell();
    try {
      const result = await write();
      draft.isSent = true;
      if (draft.row !== undefined && this.#isRow(result)) {
        draft.key = this.#keyOf(result);
        draft.row = result;
        draft.isSeen ||= this.#rows.has(draft.key);
      }
      if (draft.isSeen) this.#drafts.delete(draft);
      else setTimeout(() => this.#drafts.delete(draft) && this.#touch(), draftMs);
      this.#touch();
      return result;
    } catch (error) {
      this.#drafts.delete(draft);
      this.#touch();
      throw error;
    }
  }

  /** What a write resolved with is a row if it has what tells rows apart. */
  #isRow(result: unknown): result is Row {
    const { key } = this.#options;
    return typeof key === 'string' && typeof result === 'object' && result !== null && key in result;
  }

  #keyOf(row: Partial<Row>): string {
    const { key } = this.#options;
    return String(typeof key === 'string' ? row[key] : key(row as Row));
  }

  #start(): void {
    const { channel } = this;
    const stops = [
      channel.on('subscribed', () => this.#setStatus()),
      channel.on('state', () => this.#setStatus()),
      channel.on('gap', () => this.#load()),
      channel.on('snapshot', ({ rows, more, offset }) => {
        if (this.#options.load !== undefined || this.#changes === undefined) return;
        this.#arriving.push(...(rows as Row[]));
        if (!more) this.#fill(this.#arriving.splice(0), offset);
      }),
      channel.subscribe((message) => this.#apply(message)),
    ];
    this.#stop = () => {
      for (const stop of stops) stop();
    };
    this.#load();
  }

  #end(): void {
    this.#stop?.();
    this.#loading?.abort();
    this.#hasRows = false;
    this.#set({ status: 'idle', error: undefined });
  }

  /** From now on changes are kept aside; the rows come in their time. */
  #load(): void {
    this.#changes = new Map();
    this.#clearedAt = undefined;
    this.#arriving = [];
    this.#loading?.abort();
    this.#loading = new AbortController();
    this.#setStatus();
    const { load } = this.#options;
    const { signal } = this.#loading;
    if (load !== undefined) return void this.#loadOwn(load, signal);
    this.channel.askForRows();
    void this.#expectRows(signal);
  }

  /** A server without a rule for the rows would keep the table waiting for ever, and nobody would know why. */
  async #expectRows(signal: AbortSignal): Promise<void> {
    await this.#untilLive(signal);
    const timer = setTimeout(() => {
      if (this.#changes === undefined) return;
      this.#set({ error: new SobranieError('timeout', { message: 'the server sent no rows: give "load"' }) });
      this.#load();
    }, rowsMs);
    signal.addEventListener('abort', () => clearTimeout(timer));
  }

  async #loadOwn(load: NonNullable<LiveTableOptions<Row>['load']>, signal: AbortSignal): Promise<void> {
    try {
      await this.#untilLive(signal);
      const rows = await this.#inTime(load, signal);
      if (!signal.aborted) this.#fill(rows, 0);
    } catch (error) {
      if (signal.aborted) return;
      this.#set({ error });
      const waitMs = Math.random() * Math.min(30_000, 1_000 * 2 ** this.#failures++);
      setTimeout(() => signal.aborted || this.#load(), waitMs);
    }
  }

  /** A page that is frozen or loses its network may never hear of a request that it made: neither rows nor an error. */
  #inTime(load: NonNullable<LiveTableOptions<Row>['load']>, signal: AbortSignal): Promise<readonly Row[]> {
    return new Promise((resolve, reject) => {
      const late = () => reject(new SobranieError('timeout', { message: '"load" gave no rows' }));
      // Longer each time: what takes long may be what it takes.
      const timer = setTimeout(late, Math.min(loadMsMax, loadMs * 2 ** this.#failures));
      signal.addEventListener('abort', () => clearTimeout(timer));
      Promise.resolve(load({ signal })).then(resolve, reject);
    });
  }

  /** Rows that were read before the subscription began could miss a change that no message brings. */
  #untilLive(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (this.channel.state === 'live') return resolve();
      const stop = this.channel.on('subscribed', () => {
        stop();
        resolve();
      });
      signal.addEventListener('abort', stop);
    });
  }

  #fill(rows: readonly Row[], offset: number): void {
    const changes = this.#changes ?? new Map<string, Last<Row>>();
    const isCleared = this.#clearedAt !== undefined && this.#clearedAt > offset;
    this.#rows = new Map(isCleared ? [] : rows.map((row) => [this.#keyOf(row), row]));
    this.#changes = undefined;
    for (const [key, last] of changes) if (last.offset > offset) this.#put(key, last.row);
    this.#loading?.abort();
    this.#hasRows = true;
    this.#failures = 0;
    this.#state = { ...this.#state, error: undefined };
    // A write that the rows hold already needs no draft.
    for (const draft of this.#drafts) if (draft.isSent) this.#drafts.delete(draft);
    this.#setStatus();
    this.#touch();
  }

  #apply({ data, offset = Infinity }: Message<Change<Row>>): void {
    const { action, data: row, old } = data;
    if (action === 'TRUNCATE') {
      this.#clearedAt = offset;
      this.#changes?.clear();
      this.#rows.clear();
    } else if (action === 'DELETE') {
      if (old === null) return this.#load();
      this.#change(this.#keyOf(old), undefined, offset);
    } else {
      if (row === null) return this.#load();
      const key = this.#keyOf(row);
      // The columns that tell rows apart are always among the old ones.
      const before = old === null ? key : this.#keyOf({ ...row, ...old });
      if (before !== key) this.#change(before, undefined, offset);
      this.#change(key, row, offset);
    }
    this.#touch();
  }

  #change(key: string, row: Row | undefined, offset: number): void {
    if (this.#changes !== undefined) this.#changes.set(key, { row, offset });
    else this.#put(key, row);
    for (const draft of this.#drafts) {
      if (draft.key !== key) continue;
      draft.isSeen = draft.row === undefined ? row === undefined : row !== undefined && agrees(draft.row, row);
      if (draft.isSent) this.#drafts.delete(draft);
    }
  }

  #put(key: string, row: Row | undefined): void {
    if (row === undefined) this.#rows.delete(key);
    else this.#rows.set(key, row);
  }

  #merged(): readonly Row[] {
    if (this.#drafts.size === 0) return [...this.#rows.values()];
    const shown = new Map(this.#rows);
    for (const { key, row } of this.#drafts) {
      if (row === undefined) shown.delete(key);
      else shown.set(key, row);
    }
    return [...shown.values()];
  }

  #setStatus(): void {
    const { state, error } = this.channel;
    if (this.#listeners.size === 0) return;
    // It may have failed before this table began to listen.
    if (state === 'failed') return this.#set({ status: 'failed', error });
    if (this.#changes === undefined && state === 'live') return this.#set({ status: 'live', error: undefined });
    this.#set({ status: this.#hasRows ? 'stale' : 'loading' });
  }

  #set(change: Partial<LiveTableState<Row>>): void {
    this.#state = { ...this.#state, ...change };
    this.#notify();
  }

  #touch(): void {
    this.#isChanged = true;
    this.#notify();
  }

  #notify(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setTimeout(() => {
      this.#isDue = false;
      this.#tell();
    }, notifyMs);
  }

  #tell(): void {
    for (const listener of this.#listeners) call(listener, this.state);
  }
}

/** Whether the server's row says what the draft does, in all that the draft says. */
function agrees(draft: object, row: object): boolean {
  return Object.entries(draft).every(
    ([name, value]) => JSON.stringify(value) === JSON.stringify((row as Record<string, unknown>)[name]),
  );
}
