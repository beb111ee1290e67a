// The two ways in: a WebSocket and a bare EventSource. Each turns what it hears into calls on its feed and keeps itself
// connected. What a message means is the feed's affair.
//
// Lifecycle: open -> connecting -> live; lost -> waiting -> connecting …; cut -> cut, until resume. A refusal that a
// retry cannot mend ends in `refused`.

const backoffBaseMs = 250;
const backoffMaxMs = 15_000;
/** At first; longer when it does not help, as a server may be slow. Browsers reuse connections, also those of a dead link. */
const connectTimeoutMs = 3_000;
/** The server answers each ping: after four without an answer the link is dead. */
const pulseMs = 8_000;
const silenceMax = 3;
/** It sends one to a stream every 15 seconds. */
const streamPulseMs = 3_000;
const streamSilenceMax = 9;
/** Reasons of 1008 that a fresh token, or time, makes good. */
const mayReturn = new Set(['rate_limited', 'token_expired']);
/** From then on a connection counts as good, and the next loss is the first. */
const steadyMs = 10_000;

class Connection {
  state = 'idle';
  detail = '';

  #attempt = 0;
  #timer;
  #steady;
  #listener = () => {};

  constructor({ channel, currentToken, feed }) {
    this.channel = channel;
    this.currentToken = currentToken;
    this.feed = feed;
  }

  onChange(listener) {
    this.#listener = listener;
  }

  open() {
    this.enter('connecting');
    this.connect();
    this.#after(connectTimeoutMs * Math.max(1, Math.ceil(this.#attempt / 4)), () => this.lost('No answer in time'));
  }

  cut() {
    this.disconnect();
    this.enter('cut');
  }

  resume() {
    if (this.state === 'cut') this.open();
  }

  /** The reader looks at the page again: no reason to let it wait for the rest of a back-off. */
  hurry() {
    if (this.state === 'waiting') this.open();
  }

  live() {
    clearTimeout(this.#steady);
    this.#steady = setTimeout(() => (this.#attempt = 0), steadyMs);
    this.enter('live');
  }

  /** Full jitter: after a restart of the server, all its pages must not come back in the same instant. */
  lost(detail) {
    this.disconnect();
    const delayMs = Math.random() * Math.min(backoffMaxMs, backoffBaseMs * 2 ** this.#attempt);
    this.#attempt += 1;
    this.enter('waiting', detail);
    this.#after(delayMs, () => this.open());
  }

  refused(detail) {
    this.disconnect();
    this.enter('refused', detail);
  }

  /** The server is leaving and told this client its own moment to move; until then messages keep flowing. */
  drain({ after }) {
    if (this.state !== 'live') return;
    this.enter('live', 'The server is draining');
    this.#after(after, () => {
      this.disconnect();
      this.open();
    });
  }

  enter(state, detail = '') {
    clearTimeout(this.#timer);
    if (state !== 'live') clearTimeout(this.#steady);
    this.state = state;
    this.detail = detail;
    this.#listener();
  }

  #after(delayMs, action) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, delayMs);
  }
}

export class SocketConnection extends Connection {
  #socket = null;
  #pulse;
  /** Pings since the server was heard. */
  #silence = 0;
  /** The server's words before it closed. */
  #told = '';

  connect() {
    const url = new URL('/realtime/ws', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const token = this.currentToken();
    if (token) url.searchParams.set('token', token);

    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#told = '';
    socket.onopen = () => {
      const since = this.feed.position;
      socket.send(JSON.stringify({ type: 'subscribe', id: 1, channel: this.channel, ...(since && { since }) }));
    };
    socket.onmessage = (event) => this.#read(JSON.parse(event.data));
    socket.onclose = ({ code, reason }) => {
      const final = code === 1003 || code === 1009 || (code === 1008 && !mayReturn.has(reason));
      if (final) this.refused(this.#told || reason || `Closed with ${code}`);
      else this.lost(code === 1006 ? 'Connection lost' : reason || `Closed with ${code}`);
    };
  }

  disconnect() {
    clearInterval(this.#pulse);
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #read(frame) {
    this.#silence = 0;
    switch (frame.type) {
      case 'welcome':
        return this.#watch();
      case 'subscribed':
        this.live();
        return this.feed.subscribed(frame);
      case 'message':
        return this.feed.message(frame);
      case 'gap':
        return this.feed.gap(frame);
      case 'drain':
        return this.drain(frame);
      case 'unsubscribed':
        return this.refused(`Unsubscribed: ${frame.reason}`);
      case 'error':
        return this.#error(frame);
    }
  }

  /** Without a channel it is about the connection, whose close code says what follows. */
  #error({ channel, message, retryable }) {
    if (channel === undefined) this.#told = message;
    else if (retryable) this.lost(message);
    else this.refused(message);
  }

  // A browser does not show the server's pings, and a dead link never closes by itself, so the page pings too.
  #watch() {
    clearInterval(this.#pulse);
    this.#silence = 0;
    this.#pulse = setInterval(() => {
      if (++this.#silence > silenceMax) this.lost('The link was dead');
      else this.#socket?.send(JSON.stringify({ type: 'ping' }));
    }, pulseMs);
  }
}

export class StreamConnection extends Connection {
  #source = null;
  #cursor = '';
  #pulse;
  #silence = 0;

  connect() {
    const url = new URL('/realtime/events', location.href);
    url.searchParams.set('channels', this.channel);
    url.searchParams.set('ping', '1');
    const token = this.currentToken();
    if (token) url.searchParams.set('token', token);
    if (this.#cursor !== '') url.searchParams.set('since', this.#cursor);

    const source = new EventSource(url);
    this.#source = source;
    const on = (type, handle) =>
      source.addEventListener(type, (event) => {
        this.#silence = 0;
        if (event.lastEventId !== '') this.#cursor = event.lastEventId;
        handle(JSON.parse(event.data));
      });
    on('welcome', ({ channels }) => {
      this.live();
      this.feed.subscribed(channels[0]);
    });
    on('message', (frame) => this.feed.message(frame));
    on('gap', (frame) => this.feed.gap(frame));
    on('drain', (frame) => this.drain(frame));
    on('ping', () => {});
    clearInterval(this.#pulse);
    this.#silence = 0;
    this.#pulse = setInterval(() => {
      if (++this.#silence > streamSilenceMax) this.lost('The link was dead');
    }, streamPulseMs);
    source.onerror = () => {
      // The browser reconnects by itself with Last-Event-ID, which is what this column is here to show; only after an
      // answer that was no stream does it give up, and the page takes over.
      if (source.readyState === EventSource.CLOSED) this.lost('The server refused the stream');
      else this.enter('connecting', 'The browser reconnects');
    };
  }

  disconnect() {
    clearInterval(this.#pulse);
    this.#source?.close();
    this.#source = null;
  }
}
