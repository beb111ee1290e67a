// The bare hop between two processes that our way from node to node is measured against: starts both halves
// (baselines/sync-hop.ts), keeps them up between runs so that they are as warm as a server, and asks them.
import { BenchError, endWithBench, repositoryRoot } from './server-process.ts';

export type HopKind = 'redis' | 'postgres' | 'row' | 'nats' | 'rabbitmq' | 'kafka';

export interface HopQuestion {
  readonly rate: number;
  readonly seconds: number;
  readonly bytes: number;
  // How many the receiver waits for.
  readonly expected: number;
}

export interface HopAnswer {
  readonly published: number;
  readonly delays: readonly number[];
}

const answerSeconds = 30;

class Half {
  readonly #child: Bun.Subprocess;
  #waiting = Promise.withResolvers<HopAnswer>();
  // The first word is that it is connected.
  readonly ready: Promise<HopAnswer> = this.#waiting.promise;

  constructor(kind: HopKind, half: string, urls: readonly string[]) {
    this.#child = Bun.spawn([process.execPath, 'bench/baselines/sync-hop.ts', kind, half, ...urls], {
      cwd: repositoryRoot,
      stdio: ['ignore', 'inherit', 'inherit'],
      ipc: (told: HopAnswer) => this.#waiting.resolve(told),
    });
    endWithBench(this.#child);
    void this.#child.exited.then((code) => {
      this.#waiting.reject(new BenchError(`the bare ${half} process over ${kind} ended with ${code}`));
    });
    this.#waiting.promise.catch(() => undefined);
  }

  ask(question: HopQuestion): Promise<HopAnswer> {
    this.#waiting = Promise.withResolvers<HopAnswer>();
    const { promise, reject } = this.#waiting;
    const timer = setTimeout(() => reject(new BenchError('a bare process did not answer')), answerSeconds * 1000);
    this.#child.send(question);
    return promise.finally(() => clearTimeout(timer));
  }

  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
  }
}

export class BareHop {
  readonly #halves: readonly [publisher: Half, receiver: Half];

  private constructor(kind: HopKind, urls: readonly string[]) {
    this.#halves = [new Half(kind, 'publish', urls), new Half(kind, 'receive', urls)];
  }

  // With a database each message is committed to it before it is sent.
  static async open(kind: HopKind, url: string, databaseUrl?: string): Promise<BareHop> {
    const hop = new BareHop(kind, databaseUrl === undefined ? [url] : [url, databaseUrl]);
    try {
      await Promise.all(hop.#halves.map(({ ready }) => ready));
    } catch (error) {
      await hop.close();
      throw error;
    }
    return hop;
  }

  // The delays of one run in milliseconds, every message counted.
  async run(rate: number, seconds: number, bytes: number): Promise<readonly number[]> {
    const [publisher, receiver] = this.#halves;
    const question = { rate, seconds, bytes, expected: 0 };
    const { published } = await publisher.ask(question);
    const { delays } = await receiver.ask({ ...question, expected: published });
    if (delays.length === published) return delays;
    throw new BenchError(`the bare hop: ${published} published, ${delays.length} received`);
  }

  async close(): Promise<void> {
    await Promise.all(this.#halves.map((half) => half.stop()));
  }
}
