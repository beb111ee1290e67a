// Turns at something that serves a limited number at once. Each account has a share of them, so that whoever asks for
// much, or for what takes long, holds up nobody else. Accounts are served in rotation, and the turns of one in order.
// Nothing is kept of an account that is neither served nor waiting.
//
// An account is a user, or a connection without one. Anybody can open connections, so a smaller share is theirs, and
// together they leave some turns to users.

export interface TurnLimits {
  /** Served at once. */
  readonly total: number;
  /** Served at once for one account. */
  readonly each: number;
  /** The same for accounts without a user; by default they are as others. */
  readonly strangers?: { readonly total: number; readonly each: number };
}

interface Queue {
  readonly isStranger: boolean;
  running: number;
  /** In order; each call begins the turn of one who waits. */
  readonly waiting: Set<() => void>;
}

const waitingMax = 10_000;
const waitMsMax = 5_000;

export class Turns {
  readonly #limits: TurnLimits;
  readonly #waitMsMax: number;
  /** In the order of the rotation. */
  readonly #queues = new Map<string, Queue>();
  #running = 0;
  #runningStrangers = 0;
  #waiting = 0;

  /** `waitMs`: how long a turn is waited for, unless `take` says otherwise; tests wait less. */
  constructor(limits: TurnLimits, waitMs: number = waitMsMax) {
    this.#limits = limits;
    this.#waitMsMax = waitMs;
  }

  /** Accounts of which something is kept. */
  get size(): number {
    return this.#queues.size;
  }

  /**
   * Undefined when the turn begins at once. Rejects when it does not begin within `waitMs`; throws if too many wait.
   */
  take(account: string, isStranger = false, waitMs = this.#waitMsMax): Promise<void> | undefined {
    const queue = this.#queues.get(account) ?? { isStranger, running: 0, waiting: new Set() };
    if (this.#isFree(queue)) {
      this.#queues.set(account, queue);
      this.#start(queue);
      return undefined;
    }
    // Before anything is kept: otherwise made-up accounts would fill the memory.
    if (this.#waiting >= waitingMax) throw new Error('too many wait for their turn');
    this.#queues.set(account, queue);
    return this.#wait(account, queue, waitMs);
  }

  /** Ends a turn that was taken; the next one begins. */
  give(account: string): void {
    const queue = this.#queues.get(account);
    if (queue === undefined) throw new Error('a turn was given back that nobody took');
    queue.running--;
    this.#running--;
    if (queue.isStranger) this.#runningStrangers--;
    this.#next();
    this.#forget(account, queue);
  }

  #wait(account: string, queue: Queue, waitMs: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => {
      clearTimeout(timer);
      queue.waiting.delete(begin);
      this.#waiting--;
    };
    const begin = (): void => {
      leave();
      this.#start(queue);
      resolve();
    };
    const timer = setTimeout(() => {
      leave();
      this.#forget(account, queue);
      reject(new Error(`no turn within ${waitMs} ms`));
    }, waitMs);
    this.#waiting++;
    queue.waiting.add(begin);
    return promise;
  }

  #next(): void {
    for (const [account, queue] of this.#queues) {
      const [begin] = queue.waiting;
      if (begin === undefined || !this.#isFree(queue)) continue;
      // To the end of the rotation.
      this.#queues.delete(account);
      this.#queues.set(account, queue);
      begin();
      return;
    }
  }

  #start(queue: Queue): void {
    queue.running++;
    this.#running++;
    if (queue.isStranger) this.#runningStrangers++;
  }

  #isFree(queue: Queue): boolean {
    const { total, each, strangers } = this.#limits;
    if (this.#running >= total) return false;
    if (!queue.isStranger || strangers === undefined) return queue.running < each;
    return queue.running < strangers.each && this.#runningStrangers < strangers.total;
  }

  #forget(account: string, queue: Queue): void {
    if (queue.running === 0 && queue.waiting.size === 0) this.#queues.delete(account);
  }
}
