// The tail of one channel: what is published to it, as it comes, by the client that every page may use. A fresh ticket
// opens each connection, since tickets open one alone.

import { Sobranie } from '/console/sobranie.js';
import { call } from './console-calls.js';

const linesMax = 200;

export class Tail {
  #lines;
  #state;
  #client;

  constructor(lines, state) {
    this.#lines = lines;
    this.#state = state;
  }

  start(name, filter) {
    this.stop();
    this.#lines.replaceChildren();
    const token = async () => (await call('POST', '/console/ticket', JSON.stringify({ channel: name }))).ticket;
    const client = new Sobranie(location.origin, { token });
    this.#client = client;
    const channel = client.channel(name);
    const say = (text) => (this.#state.textContent = text);
    say('connecting');
    channel.on('state', (state) => say(`${name}: ${state}`));
    channel.on('failed', (error) => say(`${name}: ${error.message}`));
    client.on('status', ({ state, error }) => {
      if (error !== undefined) say(`${state}: ${error.message}`);
    });
    channel.subscribe(
      ({ offset, data, at, from }) => {
        const text = JSON.stringify(data, (_name, value) => (typeof value === 'bigint' ? String(value) : value));
        if (filter !== '' && !text.includes(filter)) return;
        const who = from?.user ? ` ${from.user}` : '';
        this.#add(`${new Date(at).toLocaleTimeString()} ${offset ?? ''}${who} ${text}`);
      },
      { onGap: ({ reason }) => this.#add(`gap: ${reason}`, 'bad') },
    );
  }

  stop() {
    this.#client?.close();
    this.#client = undefined;
    this.#state.textContent = '';
  }

  #add(text, kind = '') {
    const line = document.createElement('li');
    line.textContent = text;
    line.className = kind;
    this.#lines.prepend(line);
    while (this.#lines.children.length > linesMax) this.#lines.lastElementChild.remove();
  }
}
