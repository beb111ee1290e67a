// A TanStack DB collection that follows a watched table: the live table's rows, told as the writes of a sync.

import {
  liveTable,
  type ChannelName,
  type DataOf,
  type LiveTable,
  type LiveTableOptions,
  type RowOf,
  type Sobranie,
} from '@sobranie/client';
import type { CollectionConfig } from '@tanstack/db';

type Config<Row extends object> = CollectionConfig<Row, string>;

export interface SobranieCollectionOptions<Row extends object>
  extends LiveTableOptions<Row>, Pick<Config<Row>, 'onInsert' | 'onUpdate' | 'onDelete'> {
  /** The collection's name; the channel's unless given. */
  readonly id?: string;
}

/** A write that is through is waited for so long at most, should the server never publish it. */
const seenMs = 5_000;

/**
 * Options for `createCollection`. The collection is ready with its first rows, in the state `error` if the server refuses
 * them, and goes on through lost connections and gaps as a live table does. `onInsert`, `onUpdate` and `onDelete` write to the backend; the optimistic state lasts until
 * the server has published what they wrote.
 *
 * @example
 * const orders = createCollection(sobranieCollection(client, 'orders', { key: 'id' }));
 */
export function sobranieCollection<
  Channels extends object,
  Name extends ChannelName<Channels>,
  Row extends object = RowOf<DataOf<Channels, Name>>,
>(
  client: Sobranie<Channels>,
  channel: Name,
  { id = channel, onInsert, onUpdate, onDelete, ...options }: SobranieCollectionOptions<NoInfer<Row>>,
): Config<Row> & { readonly utils: { readonly table: LiveTable<Row> } } {
  const table = liveTable<Channels, Name, Row>(client, channel, options);
  const { key } = options;
  const getKey = (row: Row): string => String(typeof key === 'string' ? row[key] : key(row));
  /** Who waits for a change of these keys. */
  const waiting = new Map<Set<string>, () => void>();

  const untilSeen =
    <Params extends { readonly transaction: { readonly mutations: readonly { readonly key: unknown }[] } }>(
      write: (params: Params) => Promise<unknown>,
    ) =>
    async (params: Params): Promise<void> => {
      const keys = new Set(params.transaction.mutations.map((mutation) => String(mutation.key)));
      const seen = new Promise<void>((resolve) => waiting.set(keys, resolve));
      try {
        await write(params);
        await Promise.race([seen, new Promise((resolve) => setTimeout(resolve, seenMs))]);
      } finally {
        waiting.delete(keys);
      }
    };

  return {
    id,
    getKey,
    utils: { table },
    ...(onInsert && { onInsert: untilSeen(onInsert) }),
    ...(onUpdate && { onUpdate: untilSeen(onUpdate) }),
    ...(onDelete && { onDelete: untilSeen(onDelete) }),
    sync: {
      sync: ({ begin, write, commit, markReady, ...rest }) => {
        // Not in the oldest versions that this runs with.
        const { markError }: Partial<typeof rest> = rest;
        let known = new Map<string, Row>();
        let isSettled = false;
        return table.subscribe(({ rows, status, error }) => {
          const next = new Map(rows.map((row) => [getKey(row), row]));
          const changed = new Set<string>();
          begin();
          for (const [name, row] of known) {
            if (next.has(name)) continue;
            write({ type: 'delete', value: row });
            changed.add(name);
          }
          for (const [name, row] of next) {
            const before = known.get(name);
            if (before === row) continue;
            write({ type: before === undefined ? 'insert' : 'update', value: row });
            changed.add(name);
          }
          void commit();
          known = next;
          for (const [keys, resolve] of waiting) {
            for (const name of changed) keys.delete(name);
            if (keys.size === 0) resolve();
          }
          if (status === 'live') markReady();
          // Whoever waits for the first rows is told that there will be none.
          else if (status === 'failed' && !isSettled) markError?.(error);
          isSettled ||= status === 'live' || status === 'failed';
        });
      },
    },
  };
}
