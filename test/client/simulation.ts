// A world in which time moves by hand: timers, a random number generator with a seed, and WebSockets to a server that a
// test writes as a function. For what no real clock can show, such as ten thousand clients that lose their server at once.

import type { Platform, WebSocketLike } from '@sobranie/client';
import { randomFrom, type Random } from '../support/random.ts';

interface Timer {
  readonly at: number;
  readonly run: () => void;
}

/** Timers of one moment run in steps of so many milliseconds; between steps everything that was promised happens. */
const stepMs = 10;

export class World {
  now = 0;
  readonly random: Random;
  readonly #steps = new Map<number, Set<Timer>>();

  constructor(seed: number) {
    this.random = randomFrom(seed);
  }

  setTimeout(run: () => void, ms: number): Timer {
    const at = this.now + Math.max(0, ms);
    const timer = { at, run };
    const step = Math.floor(at / stepMs);
    const timers = this.#steps.get(step) ?? new Set();
    this.#steps.set(step, timers.add(timer));
    return timer;
  }

  clearTimeout(timer: Timer | undefined): void {
    if (timer !== undefined) this.#steps.get(Math.floor(timer.at / stepMs))?.delete(timer);
  }

  /** Lets so much time pass. */
  async pass(ms: number): Promise<void> {
    const end = this.now + ms;
    await this.settle();
    for (let step = Math.floor(this.now / stepMs); step * stepMs <= end; step++) {
      for (;;) {
        const due = [...(this.#steps.get(step) ?? [])].filter(({ at }) => at <= end);
        if (due.length === 0) break;
        due.sort((one, other) => one.at - other.at);
        for (const timer of due) {
          if (this.#steps.get(step)?.delete(timer) !== true) continue;
          this.now = Math.max(this.now, timer.at);
          timer.run();
        }
        await this.settle();
      }
      if (this.#steps.get(step)?.size === 0) this.#steps.delete(step);
    }
    this.now = end;
  }

  /** Everything that needs no time. */
  async settle(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
  }

  platform(server: FakeServer): Partial<Platform> {
    const open = (url: string, protocols: string[] = []): FakeSocket => new FakeSocket(this, server, url, protocols);
    return {
      now: () => this.now,
      wallClock: () => this.now,
      random: this.random,
      setTimeout: (run, ms) => this.setTimeout(run, ms),
      clearTimeout: (timer) => this.clearTimeout(timer),
      fetch: undefined,
      // A constructor may answer any object.
      WebSocket: function (url: string, protocols?: string[]) {
        return open(url, protocols);
      } as unknown as new (url: string, protocols?: string[]) => WebSocketLike,
    };
  }
}

export type ClientFrame = Readonly<Record<string, unknown>> & { readonly type: string };

/** Says nothing by itself but `welcome`. */
export class FakeServer {
  isUp = true;
  /** Of all attempts to connect: when they were made. */
  readonly attempts: number[] = [];
  /** Of those that were let in. */
  readonly welcomes: number[] = [];
  readonly sockets = new Set<FakeSocket>();
  readonly commands: ClientFrame[] = [];
  onCommand: (socket: FakeSocket, command: ClientFrame) => void = () => undefined;
  /** Undefined lets in. */
  refuse: (socket: FakeSocket) => { readonly code: number; readonly reason: string } | undefined = () => undefined;
  heartbeat = 25;

  cutAll(): void {
    this.isUp = false;
    for (const socket of [...this.sockets]) socket.end(1006, '');
  }
}

/** A list of one channel says the same as a command of it alone, which is easier to answer. */
function plain(command: ClientFrame): ClientFrame {
  const [only, ...others] = (command['channels'] ?? []) as object[];
  return only === undefined || others.length > 0 ? command : { ...command, channels: undefined, ...only };
}

export class FakeSocket implements WebSocketLike {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: { readonly data: unknown }) => void) | null = null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  /** Nothing comes any more, and nobody is told. */
  isMute = false;
  readonly url: string;
  readonly protocols: readonly string[];
  readonly #server: FakeServer;

  constructor(world: World, server: FakeServer, url: string, protocols: string[]) {
    this.url = url;
    this.protocols = protocols;
    this.#server = server;
    server.attempts.push(world.now);
    world.setTimeout(() => {
      if (!server.isUp) return this.end(1006, '');
      server.sockets.add(this);
      this.onopen?.(undefined as never);
      const refusal = server.refuse(this);
      if (refusal !== undefined) return this.end(refusal.code, refusal.reason);
      server.welcomes.push(world.now);
      this.say({ type: 'welcome', connection: 'c', user: 'ann', node: 'n', heartbeat: server.heartbeat });
    }, 1);
  }

  say(frame: object): void {
    if (!this.isMute) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  send(text: string): void {
    if (this.isMute) return;
    const command = plain(JSON.parse(text) as ClientFrame);
    this.#server.commands.push(command);
    this.#server.onCommand(this, command);
  }

  /** The server, or the network, ends it. */
  end(code: number, reason: string): void {
    this.#server.sockets.delete(this);
    this.onclose?.({ code, reason });
  }

  close(): void {
    this.#server.sockets.delete(this);
  }
}
