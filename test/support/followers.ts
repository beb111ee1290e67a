// Clients that follow one channel of table changes through whatever becomes of the database, over WebSocket or as a bare
// EventSource does, and come back by themselves. Each knows what it may believe: where it stands, what it was told since
// it last had to reload, and every step of the server's that did not follow from that.

import { expect } from 'bun:test';
import postgres from 'postgres';
import { EventClient, Refused, WebSocketClient, type Frame } from './clients.ts';
import { until } from './tcp-client.ts';

export type FollowerTransport = 'websocket' | 'events';
export const followerTransports = ['websocket', 'events'] as const satisfies readonly FollowerTransport[];

interface Place {
  readonly epoch: string;
  readonly offset: number;
}

interface Told extends Place {
  /** Undefined: a gap. */
  readonly id: number | undefined;
}

export interface FollowerOptions {
  /** For messages of tests. */
  readonly name: string;
  /** Of the node. */
  readonly url: string;
  readonly channel: string;
  readonly transport: FollowerTransport;
  /** Goes on from where this one is, with what it believes. */
  readonly heirOf?: Follower;
}

/** What the log and the table hold in the end. */
export interface Truth {
  readonly head: Place;
  /** The rows that the log tells, by offset. */
  readonly log: ReadonlyMap<number, number>;
  readonly table: ReadonlySet<number>;
}

export class Follower {
  readonly #options: FollowerOptions;
  readonly #told: Told[] = [];
  readonly #wrong: string[] = [];
  readonly #story: string[] = [];
  #place: Place | undefined;
  #cursor = '';
  /** It was told that it could not be brought up to date. */
  #isOwedGap = false;
  #opened = 0;
  #isClosed = false;
  #cut: (() => Promise<unknown>) | undefined;

  private constructor(options: FollowerOptions) {
    this.#options = options;
    const { heirOf } = options;
    if (heirOf === undefined) return;
    this.#place = heirOf.#place;
    this.#cursor = heirOf.#cursor;
    this.#told.push(...heirOf.#told);
  }

  /** Resolves when it is subscribed. */
  static async start(options: FollowerOptions): Promise<Follower> {
    const follower = new Follower(options);
    void follower.#live();
    await until(
      () => follower.#opened > 0,
      () => `${follower.story} is subscribed`,
      60_000,
    );
    return follower;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#cut?.();
  }

  /** Rows that it was told, those that it inherited included. */
  get rows(): number[] {
    return this.#told.flatMap(({ id }) => (id === undefined ? [] : [id]));
  }

  get gaps(): number {
    return this.#told.filter(({ id }) => id === undefined).length;
  }

  /** Who it is, and what happened to it. */
  get story(): string {
    const { epoch = '', offset = '' } = this.#place ?? {};
    return `${this.#options.name} (${this.#story.join(', ')}; now at ${epoch} ${offset})`;
  }

  async reaches(truth: Truth): Promise<void> {
    const { head } = truth;
    await until(
      () => this.#place?.epoch === head.epoch && this.#place.offset === head.offset,
      () => `${this.story} reaches ${head.epoch} ${head.offset}`,
      60_000,
    );
  }

  /** Throws where it believes what is not so, or lacks what it was not told to reload. */
  expectRight({ head, log, table }: Truth): void {
    const lastGap = this.#told.findLastIndex(({ id }) => id === undefined);
    const since = this.#told.slice(lastGap + 1);
    const faults = [...this.#wrong];
    if (this.#place?.epoch !== head.epoch || this.#place.offset !== head.offset) faults.push('it stands elsewhere');
    for (const { epoch, offset, id } of since) {
      if (id === undefined) continue;
      if (!table.has(id)) faults.push(`it believes in row ${id}, which is lost`);
      if (epoch === head.epoch && log.has(offset) && log.get(offset) !== id)
        faults.push(`it was told ${id} at ${offset}`);
    }
    const ids = since.map(({ id }) => id);
    if (new Set(ids).size !== ids.length) faults.push('it was told a row twice');
    expect(faults, this.story).toEqual([]);
  }

  async #live(): Promise<void> {
    while (!this.#isClosed) {
      try {
        await (this.#options.transport === 'websocket' ? this.#socket() : this.#stream());
        this.#story.push('the connection ended');
      } catch (error) {
        this.#story.push(error instanceof Refused ? `refused with ${error.status}` : String(error));
      }
      await Bun.sleep(100);
    }
  }

  async #socket(): Promise<void> {
    const { url, channel } = this.#options;
    const subscribe = (): void => {
      if (!this.#isClosed) client.send({ type: 'subscribe', channel, ...(this.#place && { since: this.#place }) });
    };
    const client = await WebSocketClient.open(url, {
      onText: (text) => {
        const frame = JSON.parse(text) as Frame;
        if (frame.type === 'subscribed') this.#begin(frame);
        else if (frame.type !== 'error') this.#take(frame);
        else {
          this.#story.push(`error ${frame.code}`);
          // The database was away, or slow.
          if (frame.retryable === true) setTimeout(subscribe, 100);
        }
      },
    });
    this.#cut = () => client.cut();
    subscribe();
    await client.closed;
  }

  async #stream(): Promise<void> {
    const { url, channel } = this.#options;
    const client = await EventClient.open(url, {
      query: `channels=${channel}`,
      ...(this.#cursor === '' ? {} : { lastEventId: this.#cursor }),
      onEvent: ({ frame, lastEventId }) => {
        this.#cursor = lastEventId;
        const [opened] = frame.type === 'welcome' ? (frame.channels ?? []) : [];
        if (opened === undefined) this.#take(frame);
        else this.#begin(opened);
      },
    });
    this.#cut = () => client.cut();
    await client.closed;
  }

  #begin({ epoch = '', offset = 0, recovered }: Frame): void {
    this.#opened++;
    this.#story.push(`subscribed at ${epoch} ${offset}${recovered === undefined ? '' : `, recovered ${recovered}`}`);
    if (this.#place === undefined) this.#place = { epoch, offset };
    else if (recovered === true && epoch !== this.#place.epoch) this.#wrong.push('recovered into another epoch');
    else this.#isOwedGap = recovered !== true;
  }

  #take({ type, epoch = '', offset = 0, data }: Frame): void {
    if (type === 'gap') {
      this.#story.push(`gap to ${epoch} ${offset}`);
      this.#place = { epoch, offset };
      this.#isOwedGap = false;
      this.#told.push({ epoch, offset, id: undefined });
    }
    if (type !== 'message' || this.#place === undefined) return;
    const { id } = (data as { data: { id: number } }).data;
    this.#story.push(`${id} at ${offset}`);
    if (this.#isOwedGap) this.#wrong.push(`row ${id} came, and no gap before`);
    if (offset !== this.#place.offset + 1) this.#wrong.push(`row ${id} at ${offset} came after ${this.#place.offset}`);
    this.#place = { epoch: this.#place.epoch, offset };
    this.#told.push({ ...this.#place, id });
  }
}

/** Asks a node for the log of a channel, and the database for the table of that name; undefined while a node cannot tell. */
export async function truthOf(nodeUrl: string, databaseUrl: string, table: string): Promise<Truth | undefined> {
  const response = await fetch(`${nodeUrl}/realtime/channels/${table}/history?limit=1000`);
  const page = (await response.json()) as Frame;
  if (response.status === 503) return undefined;
  if (response.status !== 200) throw new Error(`the history could not be read: ${JSON.stringify(page)}`);
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  const rows = await sql`select id from ${sql(table)}`;
  await sql.end({ timeout: 1 });
  const told = (page.messages ?? []).map((message): [number, number] => [
    message.offset ?? 0,
    (message.data as { data: { id: number } }).data.id,
  ]);
  return {
    head: { epoch: page.epoch ?? '', offset: page.offset ?? 0 },
    log: new Map(told),
    table: new Set(rows.map((row) => Number(row['id']))),
  };
}
