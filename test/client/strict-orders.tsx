// A page of React in StrictMode, which mounts everything twice: a table, a channel, presence and the connection.

import { Sobranie, type Change } from '@sobranie/client';
import { useChannel, useConnection, useLiveTable, usePresence } from '@sobranie/react';
import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';

interface Order {
  readonly id: number;
  readonly customer: string;
  readonly status: string;
}

const client = new Sobranie<{ orders: Change<Order>; news: string }>(document.body.dataset['sobranie'] ?? '');
const load = (as: string): Promise<Order[]> => fetch(`/orders?as=${as}`).then((response) => response.json());

function Orders({ channel }: { readonly channel: 'news' }): React.ReactNode {
  const [user, setUser] = useState('ann');
  const { rows, status } = useLiveTable(client, 'orders', { key: 'id', load: () => load(user) });
  const [news, add] = useState<readonly string[]>([]);
  const heard = useChannel(client, channel, ({ data }) => add([...news, data]));
  const here = usePresence(client, channel, { name: 'Ann' });
  const { state } = useConnection(client);
  return (
    <>
      <p>{`${status} ${heard} ${state} ${here.length}`}</p>
      <button onClick={() => setUser('bob')}>{user}</button>
      <p id="news">{news.join(' ')}</p>
      <ul>
        {rows.map(({ id, customer, status: now }) => (
          <li key={id}>{`${customer}: ${now}`}</li>
        ))}
      </ul>
    </>
  );
}

createRoot(document.querySelector('#root') as Element).render(
  <StrictMode>
    <Orders channel="news" />
  </StrictMode>,
);
