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

export interface SobranieCollectionOptions<Row extends object> extends LiveTableOptions<Row> {
  /** The collection's name; the channel's unless given. */
  readonly id?: string;
}

/**
 * Options for `createCollection`. The collection is ready with its first rows, and goes on through lost connections and
 * gaps as a live table does. Add `onInsert`, `onUpdate` and `onDelete` to write: what they return is awaited, and the
 * optimistic state lasts until then.
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
  { id = channel, ...options }: SobranieCollectionOptions<NoInfer<Row>>,
): CollectionConfig<Row, string> & { readonly utils: { readonly table: LiveTable<Row> } } {
  const table = liveTable<Channels, Name, Row>(client, channel, options);
  const { key } = options;
  const getKey = (row: Row): string => String(typeof key === 'string' ? row[key] : key(row));
  return {
    id,
    getKey,
    utils: { table },
    sync: {
      sync: ({ begin, write, commit, markReady }) => {
        let known = new Map<string, Row>();
        return table.subscribe(({ rows, status }) => {
          const next = new Map(rows.map((row) => [getKey(row), row]));
          begin();
          for (const [name, row] of known) if (!next.has(name)) write({ type: 'delete', value: row });
          for (const [name, row] of next) {
            const before = known.get(name);
            if (before !== row) write({ type: before === undefined ? 'insert' : 'update', value: row });
          }
          void commit();
          known = next;
          if (status === 'live') markReady();
        });
      },
    },
  };
}
