// Turns at something that serves a limited number at once. Each user has a share of them, so that a user who asks for
// much, or for what takes long, holds up nobody else. Users are served in rotation, and the turns of one user in order.
// Nothing is kept of a user who is neither served nor waiting. A connection without a user counts as a user of its own.

type User = string | null;

export interface TurnLimits {
  /** Served at once. */
  readonly total: number;
  /** Served at once for one user. */
  readonly each: number;
}

interface Queue {
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
  readonly #queues = new Map<User, Queue>();
  #running = 0;
  #waiting = 0;

  /** `waitMs`: how long a turn is waited for; tests wait less. */
  constructor(limits: TurnLimits, waitMs: number = waitMsMax) {
    this.#limits = limits;
    this.#waitMsMax = waitMs;
  }

  /** Users of whom something is kept. */
  get size(): number {
    return this.#queues.size;
  }

  /** Undefined when the turn begins at once. Rejects when it does not begin in time; throws if too many wait. */
  take(user: User): Promise<void> | undefined {
    const queue = this.#queues.get(user) ?? { running: 0, waiting: new Set() };
    if (this.#isFree(queue)) {
      this.#queues.set(user, queue);
      this.#start(queue);
      return undefined;
    }
    // Before anything is kept: otherwise made-up users would fill the memory.
    if (this.#waiting >= waitingMax) throw new Error('too many wait for their turn');
    this.#queues.set(user, queue);
    return this.#wait(user, queue);
  }

  /** Ends a turn that was taken; the next one begins. */
  give(user: User): void {
    const queue = this.#queues.get(user);
    if (queue === undefined) throw new Error('a turn was given back that nobody took');
    queue.running--;
    this.#running--;
    this.#next();
    this.#forget(user, queue);
  }

  #wait(user: User, queue: Queue): Promise<void> {
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
      this.#forget(user, queue);
      reject(new Error(`no turn within ${this.#waitMsMax} ms`));
    }, this.#waitMsMax);
    this.#waiting++;
    queue.waiting.add(begin);
    return promise;
  }

  #next(): void {
    for (const [user, queue] of this.#queues) {
      const [begin] = queue.waiting;
      if (begin === undefined || !this.#isFree(queue)) continue;
      // To the end of the rotation.
      this.#queues.delete(user);
      this.#queues.set(user, queue);
      begin();
      return;
    }
  }

  #start(queue: Queue): void {
    queue.running++;
    this.#running++;
  }

  #isFree(queue: Queue): boolean {
    return this.#running < this.#limits.total && queue.running < this.#limits.each;
  }

  #forget(user: User, queue: Queue): void {
    if (queue.running === 0 && queue.waiting.size === 0) this.#queues.delete(user);
  }
}
