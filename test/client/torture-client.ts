// One victim of the torture, in whatever runtime it runs: a client that follows some channels and a table, and notes
// everything that breaks a promise. It is asked nothing until the end.

import { liveTable, Sobranie, type Change, type Gap, type Message, type SobranieOptions } from '@sobranie/client';
import { randomFrom } from '../support/random.ts';

export interface Thing {
  readonly id: number;
  readonly value: string;
}

/** What the tormentor answers a victim that asks. */
export interface Orders {
  readonly url: string;
  readonly channels: readonly string[];
  readonly table: string;
  /** Once nothing moves any more: where each channel ends, and what is in the table. */
  readonly end?: { readonly heads: Readonly<Record<string, string>>; readonly rows: readonly Thing[] } | undefined;
}

export interface Report {
  readonly faults: readonly string[];
  /** What the client said and heard before its first fault. */
  readonly trace: readonly string[];
  readonly messages: number;
  readonly gaps: number;
  readonly connections: number;
  readonly reloads: number;
}

const finishMs = 120_000;
const askMs = 10_000;
const traceMax = 100;

/** Follows one channel and finds what should not be: a hole without a gap, a repeat, a wrong order. */
class Witness {
  messages = 0;
  gaps = 0;
  readonly faults: string[] = [];
  readonly #name: string;
  #offset: number | undefined;
  #count: number | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  take(event: Message | Gap): void {
    if (event.type === 'gap') {
      this.gaps++;
      this.#offset = event.offset;
      this.#count = undefined;
      return;
    }
    this.messages++;
    const { offset = 0 } = event;
    const { count } = event.data as { count: number };
    if (this.#offset !== undefined && offset !== this.#offset + 1) {
      this.faults.push(`${this.#name}: offset ${offset} after ${this.#offset}`);
    }
    if (this.#count !== undefined && count !== this.#count + 1) {
      this.faults.push(`${this.#name}: publication ${count} after ${this.#count}, offset ${offset}`);
    }
    this.#offset = offset;
    this.#count = count;
  }
}

/** From now on the wall clock of this runtime is set every few seconds, by up to half an hour forward or back. */
export function jumpClock(seed: number): void {
  const random = randomFrom(seed);
  const realNow = Date.now;
  let offsetMs = 0;
  Date.now = () => realNow() + offsetMs;
  setInterval(() => (offsetMs += (random() - 0.5) * 3_600_000), 7_000);
}

export async function suffer(
  tormentor: string,
  engine: string,
  transport: 'websocket' | 'sse',
  platform: SobranieOptions['platform'] = {},
): Promise<Report> {
  const ask = async <Answer>(call: string, more = {}): Promise<Answer> => {
    for (;;) {
      try {
        const body = JSON.stringify({ call, engine, transport, ...more });
        // A page that is frozen or taken offline while it asks may never get an answer.
        const signal = AbortSignal.timeout(askMs);
        return (await (await fetch(tormentor, { method: 'POST', body, signal })).json()) as Answer;
      } catch {
        // A page that is offline cannot ask.
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  };
  const { url, channels, table } = await ask<Orders>('orders');
  const trace: string[] = [];
  const witnesses: Witness[] = [];
  const client = new Sobranie<Record<string, Change<Thing>>>(url, {
    transport,
    token: () => ask<string>('token'),
    backoffMs: [300, 1_000],
    platform,
    log: (line) => {
      if (witnesses.some(({ faults }) => faults.length > 0)) return;
      trace.push(`${Math.round(performance.now())} ${line.slice(0, 200)}`);
      if (trace.length > traceMax) trace.shift();
    },
  });
  let connections = 0;
  client.on('status', ({ state }) => {
    if (state === 'connected') connections++;
  });
  for (const name of channels) {
    const witness = new Witness(name);
    const take = (event: Message | Gap): void => witness.take(event);
    client.channel(name).subscribe(take, { onGap: take });
    witnesses.push(witness);
  }
  let reloads = 0;
  const things = liveTable(client, table, {
    key: 'id',
    load: () => {
      reloads++;
      return ask<Thing[]>('rows');
    },
  });
  things.subscribe(() => undefined);

  let end: Orders['end'];
  while (end === undefined) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    ({ end } = await ask<Orders>('orders'));
  }
  const { heads, rows } = end;
  const positionOf = (name: string): string => {
    const { epoch, offset } = client.channel(name).position ?? {};
    return `${epoch} ${offset}`;
  };
  const shown = (all: readonly Thing[]): string =>
    JSON.stringify(all.toSorted((one, other) => one.id - other.id).map(({ id, value }) => [id, value]));
  const isDone = (): boolean =>
    channels.every((name) => positionOf(name) === heads[name]) &&
    things.status === 'live' &&
    shown(things.rows) === shown(rows);
  const until = performance.now() + finishMs;
  while (!isDone() && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 100));

  const faults = witnesses.flatMap((witness) => witness.faults);
  for (const name of channels) {
    if (positionOf(name) !== heads[name]) {
      faults.push(`${name}: at ${positionOf(name)}, the head is ${heads[name]}, ${client.channel(name).state}`);
    }
  }
  if (things.status !== 'live') faults.push(`the table is ${things.status}: ${String(things.state.error)}`);
  if (shown(things.rows) !== shown(rows)) faults.push(`the table shows ${shown(things.rows)}, it is ${shown(rows)}`);
  if (client.status.state !== 'connected') faults.push(`the client is ${JSON.stringify(client.status)}`);
  client.close();
  const sum = (of: 'messages' | 'gaps'): number => witnesses.reduce((total, witness) => total + witness[of], 0);
  return {
    faults,
    trace: faults.length === 0 ? [] : trace,
    messages: sum('messages'),
    gaps: sum('gaps'),
    connections,
    reloads,
  };
}
