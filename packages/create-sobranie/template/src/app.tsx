// The page: a login, then the tasks and who else looks at them.

import { useConnection, useLiveTable, usePresence } from '@sobranie/react';
import { useEffect, useState } from 'react';
import { call, client, type Task } from './backend.ts';

export function App() {
  const [user, setUser] = useState<string | null>();
  useEffect(() => {
    const loggedIn = call<{ user: string }>('GET', '/user').then((answer) => answer.user);
    void loggedIn.catch(() => null).then(setUser);
  }, []);
  const leave = async () => {
    await call('POST', '/logout');
    setUser(null);
    // Whoever logs in next gets a connection, and tickets, of their own.
    client.close();
  };
  if (user === undefined) return null;
  return user === null ? <Login enter={setUser} /> : <Tasks user={user} leave={() => void leave()} />;
}

function Login({ enter }: { enter: (user: string) => void }) {
  const login = async (form: FormData) => {
    const { user } = await call<{ user: string }>('POST', '/login', { user: form.get('user') });
    client.connect();
    enter(user);
  };
  return (
    <main>
      <h1>Tasks</h1>
      <form action={login}>
        <input name="user" aria-label="Your name" placeholder="Your name" required maxLength={40} autoFocus />
        <button>Log in</button>
      </form>
    </main>
  );
}

function Tasks({ user, leave }: { user: string; leave: () => void }) {
  const { rows, status, error, table } = useLiveTable(client, 'tasks', { key: 'id' });
  const here = usePresence(client, 'tasks');
  const { state } = useConnection(client);
  const add = (form: FormData) => call('POST', '/tasks', { title: form.get('title') });
  // Shown at once, and undone if the backend refuses.
  const set = (task: Task, done: boolean) =>
    table.put({ ...task, done }, () => call('PATCH', `/tasks/${task.id}`, { done }));
  const remove = (task: Task) => table.remove(task, () => call('DELETE', `/tasks/${task.id}`));
  return (
    <main>
      <header>
        <h1>Tasks</h1>
        <button onClick={leave}>Log out {user}</button>
      </header>
      <p role="status">
        {state === 'connected' ? status : state}
        {error instanceof Error && `: ${error.message}`}
      </p>
      <form
        action={async (form) => {
          await add(form);
        }}
      >
        <input name="title" aria-label="New task" placeholder="New task" required maxLength={200} />
        <button>Add</button>
      </form>
      <ul>
        {rows.map((task) => (
          <li key={task.id}>
            <label>
              <input type="checkbox" checked={task.done} onChange={({ target }) => void set(task, target.checked)} />
              <span>{task.title}</span> <small>{task.author}</small>
            </label>
            <button onClick={() => void remove(task)} aria-label={`Delete ${task.title}`}>
              ×
            </button>
          </li>
        ))}
      </ul>
      <h2>Online</h2>
      <ul aria-label="Online">
        {here.map((member) => (
          <li key={member.user}>{member.user}</li>
        ))}
      </ul>
    </main>
  );
}
