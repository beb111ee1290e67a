// A crowd of users with tabs that come, go, move and crash, and what each tab believes about who is there: kept as a page
// would keep it, by the list and the pushes after it, and judged strictly.

import type { PresenceChangeFrame, PresenceFrame } from '../../src/protocol/frames.ts';
import { WebSocketClient, type Frame } from './clients.ts';
import type { RunningServer } from './process.ts';
import { Belief } from './presence-belief.ts';
import { pick, type Random } from './random.ts';
import { tokenOf } from './tokens.ts';

export interface CrowdOptions {
  readonly users: number;
  readonly tabsMax: number;
  readonly rooms: readonly string[];
  /** Those that live now. */
  readonly nodes: () => readonly RunningServer[];
  readonly random: Random;
}

const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));
/** A reconnecting page waits about so long; with the grace of 5 s it has many tries. */
const retryMs = 300;

/** One page of a user. It comes back by itself until it is closed. */
class Tab {
  readonly user: string;
  readonly room: string;
  readonly #options: CrowdOptions;
  #client: WebSocketClient | undefined;
  #running: Promise<void> | undefined;
  #belief = new Belief();
  #connection: string | undefined;
  #wanted = true;
  readonly faults: string[] = [];
  /** Times that it was a member. */
  entries = 0;
  /** Lists that came without being asked for. */
  freshLists = 0;

  constructor(user: string, room: string, options: CrowdOptions) {
    this.user = user;
    this.room = room;
    this.#options = options;
    this.#running = this.#run();
  }

  /** Of a member; undefined while it is none. */
  get connection(): string | undefined {
    return this.#connection;
  }

  get believed(): string[] | undefined {
    return this.#belief.connections;
  }

  changeData(data: unknown): void {
    if (this.#connection === undefined) return;
    this.#client?.send({ type: 'presence', id: 'data', channel: this.room, data, limit: 0 });
  }

  /** The connection is lost, and the page comes back, wherever that leads. */
  crash(): void {
    void this.#client?.cut();
  }

  async close(farewell: boolean): Promise<void> {
    this.#wanted = false;
    const client = this.#client;
    if (farewell && this.#connection !== undefined) {
      client?.send({ type: 'unsubscribe', channel: this.room });
      await Promise.race([client?.close(), sleep(1_000)]);
    }
    await client?.cut();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#wanted) {
      try {
        await this.#live();
      } catch {
        // The node is gone, or what the nodes share is away.
      }
      this.#connection = undefined;
      this.faults.push(...this.#belief.faults);
      if (this.#wanted) await sleep(retryMs * (0.5 + this.#options.random()));
    }
  }

  async #live(): Promise<void> {
    const { nodes, random } = this.#options;
    const belief = (this.#belief = new Belief());
    const replies = new Map<string | number, (frame: Frame) => void>();
    let welcomed: (frame: Frame) => void = () => undefined;
    const welcome = new Promise<Frame>((resolve) => (welcomed = resolve));
    const client = await WebSocketClient.open(pick(nodes(), random).url, {
      query: `token=${await tokenOf({ sub: this.user })}`,
      onText: (text) => {
        const frame = JSON.parse(text) as Frame;
        if (frame.type === 'welcome') welcomed(frame);
        else if (frame.id !== undefined) replies.get(frame.id)?.(frame);
        else if (frame.type === 'presence') {
          this.freshLists++;
          belief.list(frame as unknown as PresenceFrame);
        } else if (frame.type === 'join' || frame.type === 'leave' || frame.type === 'update') {
          belief.push(frame as unknown as PresenceChangeFrame);
        }
      },
    });
    this.#client = client;
    const closed = client.closed.then(() => Promise.reject(new Error('closed')));
    closed.catch(() => undefined);
    const request = (command: Record<string, unknown>, id: string, took: (frame: Frame) => void): Promise<void> => {
      const reply = new Promise<void>((resolve, reject) => {
        replies.set(id, (frame) => {
          if (frame.type === 'error') reject(new Error(frame.code));
          else resolve(took(frame));
        });
      });
      client.send({ ...command, id, channel: this.room });
      return Promise.race([reply, closed, sleep(6_000).then(() => Promise.reject(new Error('no answer')))]);
    };
    try {
      const { connection } = await Promise.race([welcome, closed]);
      await request({ type: 'subscribe', presence: { n: random() } }, 'in', () => {
        this.#connection = connection;
        this.entries++;
      });
      await request({ type: 'presence', limit: 10_000 }, 'list', (frame) =>
        belief.list(frame as unknown as PresenceFrame),
      );
      if (!this.#wanted) return;
      await client.closed;
    } finally {
      this.#connection = undefined;
      await client.cut();
    }
  }
}

export class Crowd {
  readonly #options: CrowdOptions;
  readonly #tabs = new Map<string, Tab[]>();
  readonly #closing = new Set<Promise<void>>();
  readonly #gone: Tab[] = [];

  constructor(options: CrowdOptions) {
    this.#options = options;
  }

  /** Something happens to somebody. */
  step(): void {
    const { users, tabsMax, rooms, random } = this.#options;
    const number = Math.floor(random() * users);
    const user = `u${number}`;
    const tabs = this.#tabs.get(user) ?? [];
    this.#tabs.set(user, tabs);
    const chance = random();
    if (tabs.length === 0 || (chance < 0.35 && tabs.length < tabsMax)) {
      // Each user is in one room, so that tabs meet.
      tabs.push(new Tab(user, rooms[number % rooms.length] ?? '', this.#options));
      return;
    }
    const tab = pick(tabs, random);
    if (chance < 0.55) tab.changeData({ n: Math.floor(random() * 3) });
    else if (chance < 0.8) tab.crash();
    else this.#close(tab, tabs, random() < 0.5);
  }

  get size(): number {
    return [...this.#tabs.values()].reduce((sum, tabs) => sum + tabs.length, 0);
  }

  get all(): Tab[] {
    return [...this.#tabs.values()].flat();
  }

  /** Tabs that have ended among them. */
  get everyone(): Tab[] {
    return [...this.all, ...this.#gone];
  }

  /** Connections that are members of the room; undefined while some tab of it is on its way in. */
  truth(room: string): string[] | undefined {
    const connections = this.all.filter((tab) => tab.room === room).map(({ connection }) => connection);
    return connections.includes(undefined) ? undefined : (connections as string[]).toSorted();
  }

  async close(): Promise<void> {
    await Promise.all([...this.all.map((tab) => tab.close(false)), ...this.#closing]);
  }

  #close(tab: Tab, tabs: Tab[], farewell: boolean): void {
    tabs.splice(tabs.indexOf(tab), 1);
    this.#gone.push(tab);
    const closing = tab.close(farewell).finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }
}
