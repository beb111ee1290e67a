// The chat in a browser: one room, its newest messages and those before them, who is here, who is typing.

import { liveTable, Sobranie, type Change, type SobranieError } from '@sobranie/client';

interface Message {
  readonly id: number;
  readonly author_id: string;
  readonly body: string;
}

interface Channels {
  [chat: `chat:${string}`]: Change<Message>;
  [typing: `typing:${string}`]: { readonly user: string };
}

const parameters = new URLSearchParams(location.search);
const room = parameters.get('room') ?? 'lobby';
const user = parameters.get('name') ?? 'nobody';
const server = parameters.get('server') ?? document.body.dataset['sobranie'] ?? location.origin;
const element = <Kind extends Element = HTMLElement>(selector: string): Kind => {
  const found = document.querySelector<Kind>(selector);
  if (found === null) throw new Error(`the page has no ${selector}`);
  return found;
};

const client = new Sobranie<Channels>(server, {
  token: async () => (await fetch('/token', { method: 'POST' })).json() as Promise<string>,
});
// Rows by the rule's `snapshot`, then every change; older ones are kept beside, as the table forgets none.
const newest = liveTable(client, `chat:${room}`, { key: 'id' });
const older = new Map<number, Message>();
const typing = client.channel(`typing:${room}`);
const members = client.channel(`chat:${room}`).presence;

function items(list: string, texts: readonly string[]): void {
  element(list).replaceChildren(
    ...texts.map((text) => {
      const item = document.createElement('li');
      item.textContent = text;
      return item;
    }),
  );
}

function show(): void {
  const messages = new Map([...older, ...newest.rows.map((row) => [row.id, row] as const)]);
  const inOrder = [...messages.values()].sort((one, other) => one.id - other.id);
  items(
    '#messages',
    inOrder.map(({ author_id, body }) => `${author_id}: ${body}`),
  );
  document.body.dataset['status'] = newest.status;
}

newest.subscribe(show);
members.enter();
members.subscribe((here) =>
  items(
    '#members',
    here.map((member) => member.user ?? 'nobody'),
  ),
);

let quiet: ReturnType<typeof setTimeout> | undefined;
typing.subscribe(({ data }) => {
  element('#typing').textContent = `${data.user} is typing`;
  clearTimeout(quiet);
  quiet = setTimeout(() => (element('#typing').textContent = ''), 2_000);
});

const input = element<HTMLInputElement>('input');
input.addEventListener('input', () => {
  // Worth nothing a second later, so nobody waits for the answer.
  typing.publish({ user }, { echo: false }).catch(({ code }: SobranieError) => (document.body.dataset['error'] = code));
});

element('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const body = JSON.stringify({ body: input.value });
  input.value = '';
  fetch(`/rooms/${room}/messages`, { method: 'POST', body }).then(
    ({ status }) => (document.body.dataset['sent'] = String(status)),
    (error: unknown) => (document.body.dataset['error'] = String(error)),
  );
});

element('#older').addEventListener('click', () => {
  const first = Math.min(...older.keys(), ...newest.rows.map(({ id }) => id));
  void client
    .channel(`chat:${room}`)
    .history({ before: first, limit: 20 })
    .then(({ rows = [], complete }) => {
      for (const row of rows as readonly Message[]) older.set(row.id, row);
      element<HTMLButtonElement>('#older').disabled = complete;
      show();
    });
});
