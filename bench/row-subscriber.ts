// One browser's worth of WebSocket that receives rows: counts them, checks that every writer's rows arrive once and in
// order, and keeps how long each took. Rows of other runs are ignored, so that one subscriber serves many runs.
import type { RowPath } from './row-paths.ts';
import { until } from './postgres.ts';
import type { ServerProcess } from './server-process.ts';
import { wallClockMs } from './wall-clock.ts';

interface BenchRow {
  readonly run: number;
  readonly writer: number;
  readonly number: number;
  readonly sent_at: number;
}

// Ours wraps the change into a message; the plain path sends the change as it is.
interface Frame {
  readonly type?: string;
  readonly data?: BenchRow & { readonly data?: BenchRow | null };
}

export class RowSubscriber {
  readonly #socket: WebSocket;
  readonly #next = new Map<number, number>();
  #run = -1;
  #subscribed = false;
  #closed = false;
  count = 0;
  repeatedOrMisplaced = 0;
  gaps = 0;
  lastSentAt = 0;
  lastReceivedAt = 0;
  latencies: number[] = [];

  private constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  static async open(path: RowPath, server: ServerProcess): Promise<RowSubscriber> {
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}${path.socketPath}`);
    const subscriber = new RowSubscriber(socket);
    socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', channel: path.channel, id: 1 }));
    socket.onclose = () => (subscriber.#closed = true);
    socket.onmessage = (event) => subscriber.#onText(String(event.data));
    await until(`${path.name}: subscribed`, 10, () => subscriber.#subscribed);
    return subscriber;
  }

  begin(run: number): void {
    this.#run = run;
    this.#next.clear();
    this.count = this.repeatedOrMisplaced = this.gaps = this.lastSentAt = this.lastReceivedAt = 0;
    this.latencies = [];
  }

  // Resolves when so many rows are there, or when nothing has come for five seconds: the counts tell which.
  async received(rows: number): Promise<void> {
    const quietMs = 5000;
    let seen = this.count;
    let since = performance.now();
    while (this.count < rows && !this.#closed && performance.now() - since < quietMs) {
      await Bun.sleep(2);
      if (this.count !== seen) {
        seen = this.count;
        since = performance.now();
      }
    }
  }

  // What is wrong with a run of so many rows, or undefined.
  fault(rows: number): string | undefined {
    if (this.#closed) return 'the subscriber was disconnected';
    if (this.count === rows && this.repeatedOrMisplaced + this.gaps === 0) return undefined;
    return (
      `${rows} rows committed, ${this.count} received, ${this.repeatedOrMisplaced} twice or out of order, ` +
      `${this.gaps} gap frames`
    );
  }

  close(): void {
    this.#socket.close();
  }

  #onText(text: string): void {
    const now = wallClockMs();
    const frame = JSON.parse(text) as Frame;
    if (frame.type === 'subscribed') this.#subscribed = true;
    if (frame.type === 'gap') this.gaps++;
    const row = frame.data?.data ?? frame.data;
    if (row?.run !== this.#run) return;
    this.count++;
    if ((this.#next.get(row.writer) ?? 1) !== row.number) this.repeatedOrMisplaced++;
    this.#next.set(row.writer, row.number + 1);
    this.latencies.push(now - row.sent_at);
    this.lastSentAt = Math.max(this.lastSentAt, row.sent_at);
    this.lastReceivedAt = now;
  }
}
