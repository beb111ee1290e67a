// Orders, live: everyone who has logged in sees the same rows and who else is there, through sleep, deploys and expired
// tokens. `backend.ts` beside it serves the page, logs people in and writes the table.

import { Sobranie, type Change } from '@sobranie/client';
import { useConnection, useLiveTable, usePresence } from '@sobranie/react';
import { useState } from 'react';
import { createRoot } from 'react-dom/client';

type Order = { id: number; customer: string; status: string };
const api = (path: string, body: FormData | null = null) =>
  fetch(path, { method: 'POST', body }).then((answer) => answer.json());
const url = document.body.dataset['sobranie'] ?? '';
const client = new Sobranie<{ orders: Change<Order> }>(url, { token: () => api('/token') });

function Orders({ user }: { user: string }) {
  const { rows, status, table } = useLiveTable(client, 'orders', { key: 'id', load: () => api('/orders') });
  const here = usePresence(client, 'orders', { user });
  const { state } = useConnection(client);
  const send = (order: Order) => table.put({ ...order, status: 'sent' }, () => api(`/orders/${order.id}/send`));
  const text = ({ customer, status }: Order) => `${customer}: ${status}`;
  const list = rows.map((order) => <button key={order.id} onClick={() => send(order)} children={text(order)} />);
  return <main children={[`${state}, ${status}, here: ${here.map((member) => member.user).join(', ')}`, list]} />;
}

function App() {
  const [user, setUser] = useState<string>();
  const login = (form: FormData) => api('/login', form).then(setUser);
  return user ? <Orders user={user} /> : <form action={login} children={<input name="user" aria-label="Name" />} />;
}

createRoot(document.querySelector('#root') as Element).render(<App />);
