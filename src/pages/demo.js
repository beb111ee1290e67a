// The demo page's composition: one store, two connections with a feed and a column each, the forms and the cut.

import { channelStore, readInfo, tableStore, token } from './demo-api.js';
import { Column } from './demo-column.js';
import { Connection } from './demo-connection.js';
import { runCut } from './demo-cut.js';
import { Feed } from './demo-feed.js';
import { showPresence, showSnippets, wireCopy, wireToken } from './demo-own.js';

const loadRetryMs = 1_000;

const byId = (id) => document.querySelector(`#${id}`);
const message = byId('message');

function say(text, isError = false) {
  message.textContent = text;
  message.classList.toggle('error', isError);
}

async function attempt(action) {
  try {
    await action();
    return true;
  } catch (error) {
    say(error.message, true);
    return false;
  }
}

/** One load at a time per feed; who asks for another one meanwhile gets it afterwards, from a newer table. */
function createFeed(store) {
  let running = false;
  let again = false;
  const load = async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      feed.loadStarted();
      try {
        feed.load(await store.list());
      } catch (error) {
        say(error.message, true);
        again = true;
        await new Promise((resolve) => setTimeout(resolve, loadRetryMs));
      }
    } while (again);
    running = false;
  };
  const feed = new Feed({ needsLoad: () => void load() });
  return feed;
}

function createSide(root, { title, detail, transport, store, rowActions }) {
  const feed = createFeed(store);
  const connection = new Connection({ channel: store.channel, token: token.read, feed, transport });
  const column = new Column(root, { title, detail, feed, connection, rowActions });
  connection.open();
  return { feed, connection, column };
}

function wireInsert(store) {
  const form = byId('insert');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const { title, body } = form.elements;
    void attempt(async () => {
      await store.insert({ title: title.value, body: body.value });
      form.reset();
      title.focus();
      say('');
    });
  });
}

function createRowActions(store) {
  const dialog = byId('edit');
  const form = dialog.querySelector('form');
  let editedId = null;
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const { title, body } = form.elements;
    void attempt(() => store.update(editedId, { title: title.value, body: body.value })).then((done) => {
      if (done) say('');
      dialog.close();
    });
  });
  byId('cancel').addEventListener('click', () => dialog.close());
  return {
    edit(row) {
      editedId = row.id;
      form.elements.title.value = row.title;
      form.elements.body.value = row.body ?? '';
      dialog.showModal();
    },
    remove: (id) => void attempt(() => store.remove(id)),
  };
}

function wireCut(sides, store) {
  const button = byId('cut');
  button.addEventListener('click', () => {
    button.disabled = true;
    void attempt(() => runCut({ sides, store, say })).then(() => {
      button.disabled = false;
    });
  });
}

function showInfo({ node, sync, psql, database, documents }) {
  byId('server').textContent = `node ${node} · sync ${sync}`;
  byId('documents').hidden = !documents;
  byId('no-database').hidden = database;
  if (!database || psql === null) return;
  byId('psql').hidden = false;
  byId('psql-line').textContent = `${psql} -c "insert into posts (title, body) values ('Hello', 'from psql')"`;
  wireCopy(byId('copy'), byId('psql-line'), attempt);
}

async function readInfoUntilItAnswers() {
  for (;;) {
    try {
      return await readInfo();
    } catch (error) {
      say(error.message, true);
      await new Promise((resolve) => setTimeout(resolve, loadRetryMs));
    }
  }
}

const info = await readInfoUntilItAnswers();
say('');
showInfo(info);
const store = info.database ? tableStore : channelStore;
const rowActions = store.editable ? createRowActions(store) : null;
const sides = [
  createSide(byId('socket'), {
    title: 'WebSocket',
    detail: 'GET /realtime/ws',
    transport: 'websocket',
    store,
    rowActions,
  }),
  createSide(byId('stream'), {
    title: 'EventSource',
    detail: 'GET /realtime/events',
    transport: 'sse',
    store,
    rowActions,
  }),
];
wireInsert(store);
wireCut(sides, store);
showSnippets();
wireCopy(byId('copy-sql'), byId('own-sql'), attempt);
wireCopy(byId('copy-client'), byId('own-client'), attempt);
const connections = sides.map(({ connection }) => connection);
const drawToken = wireToken(connections, token);
for (const { connection, column } of sides) {
  connection.onChange(() => {
    column.draw();
    drawToken();
  });
}
drawToken();
showPresence(connections[0], `guest ${Math.floor(Math.random() * 1_000)}`);
byId('cut').disabled = false;
