// Browsers that follow a channel each, go on elsewhere when their node dies, and notice whatever they were not told or told
// twice. The data of a channel count from 1.

import { until } from '../support/tcp-client.ts';

interface Place {
  readonly epoch: string;
  readonly offset: number;
}

interface Frame {
  readonly type: string;
  readonly epoch?: string;
  readonly offset?: number;
  readonly recovered?: boolean;
  readonly retryable?: boolean;
  readonly data?: { readonly n: number; readonly at: number };
}

interface CrowdNode {
  readonly url: string;
}

const openMsMax = 60_000;
const delaysMax = 200_000;

export class Crowd {
  readonly #browsers: readonly Browser[];
  readonly faults: string[] = [];
  readonly #delays: number[] = [];
  deliveries = 0;

  private constructor(nodes: () => readonly CrowdNode[], browsers: number, channels: number) {
    const told = (at: number): void => {
      this.deliveries++;
      if (this.#delays.length < delaysMax) this.#delays.push(Date.now() - at);
    };
    const wrong = (fault: string): void => {
      if (this.faults.length < 20) this.faults.push(fault);
    };
    this.#browsers = Array.from(
      { length: browsers },
      (_, place) => new Browser(place, place % channels, nodes, told, wrong),
    );
  }

  /** Resolves when all are subscribed. */
  static async open(nodes: () => readonly CrowdNode[], browsers: number, channels: number): Promise<Crowd> {
    const crowd = new Crowd(nodes, browsers, channels);
    for (const browser of crowd.#browsers) browser.connect();
    await until(() => crowd.#browsers.every(({ isLive }) => isLive), 'all are subscribed', openMsMax, 50);
    return crowd;
  }

  /** Resolves when each has all of its channel, of which so many were sent. */
  async reaches(sent: readonly number[]): Promise<void> {
    const missing = (): readonly Browser[] => this.#browsers.filter(({ channel, seen }) => seen < (sent[channel] ?? 0));
    await until(
      () => missing().length === 0 || this.faults.length > 0,
      () => `${missing().length} lack something: ${missing()[0]?.seen} of ${sent[missing()[0]?.channel ?? 0]}`,
      180_000,
      50,
    );
  }

  delays(): string {
    const sorted = this.#delays.toSorted((one, other) => one - other);
    const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? 0;
    return `ms from producer to browser p50 ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}`;
  }

  async close(): Promise<void> {
    await Promise.all(this.#browsers.map((browser) => browser.close()));
  }
}

class Browser {
  readonly channel: number;
  readonly #number: number;
  readonly #nodes: () => readonly CrowdNode[];
  readonly #told: (at: number) => void;
  readonly #wrong: (fault: string) => void;
  #place: Place | undefined;
  #socket: WebSocket | undefined;
  #isClosed = false;
  isLive = false;
  seen = 0;

  constructor(
    number: number,
    channel: number,
    nodes: () => readonly CrowdNode[],
    told: (at: number) => void,
    wrong: (fault: string) => void,
  ) {
    this.#number = number;
    this.channel = channel;
    this.#nodes = nodes;
    this.#told = told;
    this.#wrong = wrong;
  }

  connect(): void {
    const nodes = this.#nodes();
    const node = nodes[this.#number % nodes.length];
    if (node === undefined) throw new Error('no node lives');
    const socket = new WebSocket(`${node.url.replace('http', 'ws')}/realtime/ws`);
    this.#socket = socket;
    const subscribe = (): void => {
      const since = this.#place === undefined ? {} : { since: this.#place };
      socket.send(JSON.stringify({ type: 'subscribe', channel: `customer:${this.channel}`, ...since }));
    };
    socket.onopen = subscribe;
    socket.onmessage = ({ data }) => this.#take(JSON.parse(String(data)) as Frame, subscribe);
    socket.onclose = () => {
      this.isLive = false;
      if (!this.#isClosed) setTimeout(() => this.connect(), 50 + Math.random() * 200);
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const socket = this.#socket;
    if (socket === undefined || socket.readyState === WebSocket.CLOSED) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.onclose = () => resolve();
    socket.close();
    await promise;
  }

  #take({ type, epoch = '', offset = 0, recovered, retryable, data }: Frame, subscribe: () => void): void {
    if (type === 'error' && retryable === true) setTimeout(subscribe, 200);
    else if (type === 'error' || type === 'gap') this.#wrong(`browser ${this.#number}: ${type}`);
    else if (type === 'subscribed') {
      if (this.#place !== undefined && recovered !== true) this.#wrong(`browser ${this.#number} did not recover`);
      this.#place ??= { epoch, offset };
      this.isLive = true;
    } else if (type === 'message' && this.#place !== undefined && data !== undefined) {
      const isNext = offset === this.#place.offset + 1 && data.n === this.seen + 1;
      if (!isNext)
        this.#wrong(`browser ${this.#number}: ${data.n} at ${offset} after ${this.seen} at ${this.#place.offset}`);
      this.#place = { epoch: this.#place.epoch, offset };
      this.seen = data.n;
      this.#told(data.at);
    }
  }
}
