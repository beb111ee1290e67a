// The console's composition: asks for the key where one is needed, looks at the server every few seconds, draws what it
// says, and carries out what the operator asks. Texts are only ever set as text, never as markup.

import { call, key } from './console-calls.js';
import { Rates } from './console-rates.js';
import { Tail } from './console-tail.js';

const lookEveryMs = 3_000;
const byId = (id) => document.querySelector(`#${id}`);
const rates = new Rates(byId('rates'), byId('facts'));
const tail = new Tail(byId('tail-lines'), byId('tail-state'));
/** Nodes that were asked to drain, until they are gone. */
const draining = new Set();
let state;
let timer;

function say(text, isError = false) {
  byId('message').textContent = text;
  byId('message').classList.toggle('error', isError);
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (error.unauthorized) askForKey(key.get() === '' ? '' : error.message);
    else say(error.message, true);
  }
}

function askForKey(text) {
  clearTimeout(timer);
  key.forget();
  tail.stop();
  byId('all').hidden = true;
  byId('leave').hidden = true;
  byId('enter').hidden = false;
  byId('enter').elements.key.focus();
  say(text, true);
}

async function look() {
  clearTimeout(timer);
  await attempt(async () => {
    // Alone: a page without the key is refused once, and not by each call.
    const next = await call('GET', '/console/state');
    const [latest, metrics] = await Promise.all([
      call('GET', `/console/rates?after=${Math.max(0, rates.after)}`),
      call('GET', '/console/metrics'),
    ]);
    if (state === undefined || byId('all').hidden) say('');
    state = next;
    byId('enter').hidden = true;
    byId('all').hidden = false;
    byId('leave').hidden = key.get() === '';
    rates.take(latest);
    rates.takeFacts(metrics);
    const missing = latest.incomplete.length === 0 ? '' : `, without ${latest.incomplete.join(', ')}`;
    byId('rates-title').textContent = `All nodes in the last 15 minutes${missing}`;
    byId('facts-title').textContent = `The node ${next.node} now`;
    draw();
  });
  if (byId('enter').hidden) timer = setTimeout(() => void look(), lookEveryMs);
}

function element(tag, text = '', className = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function button(text, label, action) {
  const made = element('button', text);
  made.type = 'button';
  made.setAttribute('aria-label', label);
  made.addEventListener('click', action);
  return made;
}

/** Keeps the elements of rows that stay, so that the focus is not lost. */
function rows(root, items, idOf, make) {
  const known = new Map(Array.from(root.children, (row) => [row.dataset.id, row]));
  const wanted = items.map((item) => {
    const row = known.get(idOf(item)) ?? element('tr');
    row.dataset.id = idOf(item);
    make(row, item);
    return row;
  });
  for (const [id, row] of known) if (!wanted.includes(row)) known.get(id).remove();
  wanted.forEach((row, index) => {
    if (root.children[index] !== row) root.insertBefore(row, root.children[index] ?? null);
  });
}

function cells(row, texts, makeLast) {
  if (row.children.length === 0) {
    row.append(...texts.map(() => element('td')));
    const last = element('td');
    last.append(makeLast());
    row.append(last);
  }
  texts.forEach((text, index) => (row.children[index].textContent = text));
}

function draw() {
  const { node, version, sync, nodes, health } = state;
  byId('server').textContent = `node ${node} · version ${version} · sync ${sync} · ${health.status}`;
  const known = new Set(nodes.map((each) => each.node));
  for (const name of draining) if (!known.has(name)) draining.delete(name);
  rows(
    byId('nodes'),
    nodes,
    (each) => each.node,
    (row, each) => {
      cells(row, [each.node, String(each.connections), new Date(each.since).toLocaleString()], () =>
        button('Drain', `Drain ${each.node}`, () => void drain(each.node)),
      );
      const control = row.querySelector('button');
      control.disabled = draining.has(each.node);
      control.textContent = draining.has(each.node) ? `draining, ${each.connections} left` : 'Drain';
    },
  );
  drawChannels();
  const watches = (state.watches ?? []).map(({ table, channels, columns, fault, faults, reason }) => {
    const bad = fault !== null || faults > 0;
    const told = [
      `${table} → ${channels.join(', ')}${columns === null ? '' : ` (${columns.join(', ')})`}`,
      fault,
      faults > 0 ? `${faults} changes could not be captured: ${reason}` : null,
    ];
    return element('li', told.filter((part) => part !== null).join('\n'), bad ? 'bad' : '');
  });
  fill('watches', watches, state.watches === null ? 'The database does not answer.' : 'No table is watched.');
  const errors = state.errors
    .toReversed()
    .map(({ at, level, text }) =>
      element('li', `${new Date(at).toLocaleTimeString()} ${level} ${text}`, level === 'warn' ? '' : 'bad'),
    );
  fill('errors', errors, 'None.');
}

function fill(id, items, nothing) {
  byId(id).replaceChildren(...(items.length > 0 ? items : [element('li', nothing)]));
}

function drawChannels() {
  if (state === undefined) return;
  const { total, some, incomplete } = state.channels;
  const wanted = byId('channel-filter').value;
  const shown = some.filter(({ channel }) => channel.includes(wanted)).slice(0, 100);
  const missing = incomplete.length === 0 ? '' : `; without ${incomplete.join(', ')}`;
  byId('channels-note').textContent = `${shown.length} of ${total} channels with subscribers${missing}`;
  rows(
    byId('channels'),
    shown,
    ({ channel }) => channel,
    (row, { channel, subscribers }) => {
      cells(row, [channel, String(subscribers)], () =>
        button('Tail', `Tail ${channel}`, () => {
          byId('tail').elements.channel.value = channel;
          byId('tail').requestSubmit();
        }),
      );
    },
  );
}

async function drain(name) {
  if (!confirm(`Drain ${name}? Its clients are sent to other nodes, and its process ends.`)) return;
  await attempt(async () => {
    await call('POST', `/realtime/nodes/${encodeURIComponent(name)}/drain`);
    draining.add(name);
    draw();
    say(`${name} drains.`);
  });
}

async function showUser(user) {
  const { connections } = await call('GET', `/console/users/${encodeURIComponent(user)}`);
  const lines = connections.map(({ connection, node, transport, since, channels }) =>
    element(
      'li',
      `${connection} · ${transport} · ${node}\n${new Date(since).toLocaleString()} · ${channels.join(', ')}`,
    ),
  );
  fill('connections', lines, `${user} is not connected.`);
  byId('disconnect').disabled = connections.length === 0;
}

function onSubmit(id, action) {
  byId(id).addEventListener('submit', (event) => {
    event.preventDefault();
    void attempt(() => action(byId(id).elements));
  });
}

onSubmit('enter', async (fields) => {
  key.set(fields.key.value);
  fields.key.value = '';
  await look();
});
onSubmit('tail', (fields) => {
  byId('tail-stop').disabled = false;
  tail.start(fields.channel.value, fields.filter.value);
});
onSubmit('user', (fields) => showUser(fields.user.value));
onSubmit('publish', async (fields) => {
  const [channel, data] = [fields.channel.value, fields.data.value];
  try {
    JSON.parse(data);
  } catch {
    throw new Error('The data is not JSON.');
  }
  // As it was typed: printing it again would round large numbers.
  const { offset } = await call('POST', '/console/publish', `{"channel":${JSON.stringify(channel)},"data":${data}}`);
  say(`Published to ${channel}${offset === undefined ? '' : `, offset ${offset}`}.`);
});
byId('tail-stop').addEventListener('click', () => {
  tail.stop();
  byId('tail-stop').disabled = true;
});
byId('disconnect').addEventListener('click', () => {
  const user = byId('user').elements.user.value;
  void attempt(async () => {
    const { connections } = await call('POST', `/console/users/${encodeURIComponent(user)}/disconnect`);
    say(`${connections} connections of ${user} were closed.`);
    await showUser(user);
  });
});
byId('channel-filter').addEventListener('input', drawChannels);
byId('leave').addEventListener('click', () => askForKey(''));
void look();
