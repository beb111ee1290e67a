// React hooks over the client. Each reads a store that changes by new objects, through `useSyncExternalStore`: safe in
// StrictMode, which mounts twice, since a store starts with its first listener and lingers a moment after its last; and
// safe on a server, where nothing subscribes and the first state is rendered.

import {
  liveTable,
  type ChannelName,
  type ChannelState,
  type ConnectionStatus,
  type DataOf,
  type Gap,
  type LiveTable,
  type LiveTableOptions,
  type LiveTableState,
  type Member,
  type Message,
  type RowOf,
  type Sobranie,
} from '@sobranie/client';
import { useCallback, useEffect, useMemo, useRef, useSyncExternalStore } from 'react';

export interface LiveTableView<Row extends object> extends LiveTableState<Row> {
  /** For `put` and `remove`. */
  readonly table: LiveTable<Row>;
}

/**
 * The rows of a watched table as they are now. Two components that show the same rows share a table best: make it once
 * with `liveTable`, and give it to `useTable`.
 *
 * @example
 * const { rows, status, table } = useLiveTable(client, 'orders', { key: 'id' });
 */
export function useLiveTable<
  Channels extends object,
  Name extends ChannelName<Channels>,
  Row extends object = RowOf<DataOf<Channels, Name>>,
>(client: Sobranie<Channels>, channel: Name, options: LiveTableOptions<NoInfer<Row>>): LiveTableView<Row> {
  // Options are usually written anew with each rendering; a table keeps those of its first. But its `load` must not be the
  // first one for ever: such a function holds what its rendering knew, a token say.
  const latest = useRef(options);
  latest.current = options;
  const table = useMemo(() => {
    const { key, load } = latest.current;
    const newest: typeof load = load && ((request) => (latest.current.load ?? load)(request));
    return liveTable<Channels, Name, Row>(client, channel, { key, ...(newest && { load: newest }) });
  }, [client, channel]);
  return useTable(table);
}

/**
 * A table that was made elsewhere, followed while the component is mounted.
 *
 * @example
 * const { rows } = useTable(orders);
 */
export function useTable<Row extends object>(table: LiveTable<Row>): LiveTableView<Row> {
  const subscribe = useCallback((changed: () => void) => table.subscribe(changed), [table]);
  const read = (): LiveTableState<Row> => table.state;
  const state = useSyncExternalStore(subscribe, read, read);
  return useMemo(() => ({ ...state, table }), [state, table]);
}

/**
 * Subscribes while mounted and calls `listener` with each message; a new function with each rendering is fine. Answers
 * how the subscription stands.
 *
 * @example
 * const state = useChannel(client, `chat:${room}`, ({ data }) => add(data), { onGap: reload });
 */
export function useChannel<Channels extends object, Name extends ChannelName<Channels>>(
  client: Sobranie<Channels>,
  name: Name,
  listener: (message: Message<DataOf<Channels, Name>>) => void,
  options: { readonly onGap?: (gap: Gap) => void } = {},
): ChannelState {
  const channel = client.channel(name);
  const latest = useRef({ listener, options });
  useEffect(() => {
    latest.current = { listener, options };
  });
  useEffect(
    () =>
      channel.subscribe((message) => latest.current.listener(message), {
        onGap: (gap) => latest.current.options.onGap?.(gap),
      }),
    [channel],
  );
  const subscribe = useCallback((changed: () => void) => channel.on('state', changed), [channel]);
  const read = (): ChannelState => channel.state;
  return useSyncExternalStore(subscribe, read, read);
}

const nobody: readonly Member[] = [];

/**
 * Who is in the channel, one entry for each user. This client is in it too while the component is mounted, with `data`
 * for the others to see: the server tells those alone who are there.
 *
 * @example
 * const here = usePresence(client, 'orders', { name: 'Ann' });
 */
export function usePresence<Channels extends object, Name extends ChannelName<Channels>>(
  client: Sobranie<Channels>,
  name: Name,
  data: Readonly<Record<string, unknown>> | true = true,
): readonly Member[] {
  const { presence } = client.channel(name);
  // Equal data of two renderings is the same data.
  const text = JSON.stringify(data);
  useEffect(() => presence.enter(JSON.parse(text) as Record<string, unknown> | true), [presence, text]);
  const subscribe = useCallback((changed: () => void) => presence.subscribe(changed), [presence]);
  return useSyncExternalStore(
    subscribe,
    () => presence.members,
    () => nobody,
  );
}

/**
 * How the connection stands: `state`, `transport`, `user`, `error`.
 *
 * @example
 * const { state } = useConnection(client);
 */
export function useConnection<Channels extends object>(client: Sobranie<Channels>): ConnectionStatus {
  const subscribe = useCallback((changed: () => void) => client.on('status', changed), [client]);
  const read = (): ConnectionStatus => client.status;
  return useSyncExternalStore(subscribe, read, read);
}
