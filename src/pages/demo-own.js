// What the page says beside the two columns: who else looks at it, a token where the server asks for one, and how to
// follow a table of one's own.

const byId = (id) => document.querySelector(`#${id}`);
const namesMax = 8;

/** Who is here, by one of the connections. Without the right to see it nothing is shown. */
export function showPresence({ channel }, name) {
  const { presence } = channel;
  const element = byId('here');
  presence.subscribe((members) => {
    const names = members.map(({ user, data }) => user ?? data?.name ?? 'somebody');
    const more = names.length > namesMax ? ` and ${names.length - namesMax} more` : '';
    element.textContent = `Here now: ${names.slice(0, namesMax).join(', ')}${more}`;
    element.hidden = names.length === 0;
  });
  presence.enter({ name });
}

/** Asks for a token while a connection is refused. */
export function wireToken(connections, { read, write }) {
  const form = byId('token');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    write(form.elements.token.value.trim());
    for (const connection of connections) connection.reconnect();
  });
  return () => {
    form.hidden = !connections.some(({ state }) => state === 'refused');
    if (form.hidden) form.elements.token.value = read() ?? '';
  };
}

const snippets = {
  sql: "select realtime.watch('public.your_table');",
  client: `import { liveTable, Sobranie } from '@sobranie/client';

const client = new Sobranie('${location.origin}');
const load = () => fetch('/your-rows').then((response) => response.json());
const table = liveTable(client, 'your_table', { key: 'id', load });
table.subscribe(({ rows, status }) => console.log(status, rows));`,
};

export function showSnippets() {
  byId('own-sql').textContent = snippets.sql;
  byId('own-client').textContent = snippets.client;
}

/** A button that copies what an element shows. */
export function wireCopy(button, element, attempt) {
  button.addEventListener('click', () => {
    void attempt(async () => {
      await copyText(element);
      button.textContent = 'Copied';
    });
  });
}

// The clipboard is closed to pages that are neither https nor localhost; selecting the line is the next best help.
async function copyText(element) {
  if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(element.textContent);
  getSelection().selectAllChildren(element);
  throw new Error('This page may not use the clipboard here; the line is selected, copy it with the keyboard.');
}
