// The two ways in, by the client that every page may use: one over a WebSocket, one over event streams alone. Each turns
// what it hears into calls on its feed. What a message means is the feed's affair; staying connected is the client's.

import { Sobranie } from './sobranie.js';

export class Connection {
  state = 'idle';
  detail = '';
  channel;

  #client;
  #stop = () => {};
  #isCut = false;
  #failure = '';
  #listener = () => {};

  constructor({ channel, token, feed, transport }) {
    this.#client = new Sobranie(location.origin, { token, transport });
    this.channel = this.#client.channel(channel);
    this.channel.on('subscribed', (subscribed) => feed.subscribed(subscribed));
    this.channel.on('gap', (gap) => feed.gap(gap));
    this.channel.on('failed', (error) => (this.#failure = error.message));
    this.channel.on('state', () => this.#look());
    this.#client.on('status', () => this.#look());
    this.#stop = () => this.channel.subscribe((message) => feed.message(message));
  }

  onChange(listener) {
    this.#listener = listener;
  }

  open() {
    this.#stop();
  }

  cut() {
    this.#isCut = true;
    this.#client.close();
    this.#look();
  }

  resume() {
    this.#isCut = false;
    this.#client.connect();
    this.#look();
  }

  /** With another token. */
  reconnect() {
    this.#failure = '';
    this.#client.connect();
    this.#client.reconnect();
  }

  #look() {
    const { state, error } = this.#client.status;
    const isLive = this.channel.state === 'live';
    const isRefused = this.channel.state === 'failed' || (state === 'closed' && !this.#isCut);
    const names = { connected: 'connecting', closed: 'refused' };
    this.state = this.#isCut ? 'cut' : isRefused ? 'refused' : isLive ? 'live' : (names[state] ?? state);
    this.detail = this.#isCut || isLive ? '' : (error?.message ?? this.#failure);
    this.#listener();
  }
}
