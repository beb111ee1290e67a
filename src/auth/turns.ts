// Whose turn it is where only so many may be served at once: some of each user, so that one who asks for much, or for
// what takes long, holds up nobody but himself. Users take turns; each one's are in order.

type User = string | null;

export interface TurnLimits {
  /** Served at once. */
  readonly total: number;
  /** Of one user. */
  readonly each: number;
}

interface Queue {
  running: number;
  /** Starts the next one; false when it waits no more. */
  readonly waiting: (() => boolean)[];
}

const waitingMax = 10_000;
const waitMsMax = 5_000;

export class Turns {
  readonly #limits: TurnLimits;
  /** In the order in which they are looked at. */
  readonly #queues = new Map<User, Queue>();
  #running = 0;
  #waiting = 0;

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /** Undefined: it is the user's turn at once. Rejects when it does not come within five seconds; throws if too many wait. */
  take(user: User): Promise<void> | undefined {
    const queue = this.#queueOf(user);
    if (this.#isFree(queue)) {
      this.#start(queue);
      return undefined;
    }
    if (this.#waiting >= waitingMax) throw new Error('too many wait for their turn');
    this.#waiting++;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let waits = true;
    const leave = (): void => {
      waits = false;
      this.#waiting--;
    };
    const timer = setTimeout(() => {
      leave();
      reject(new Error(`no turn within ${waitMsMax} ms`));
    }, waitMsMax);
    queue.waiting.push(() => {
      if (!waits) return false;
      clearTimeout(timer);
      leave();
      this.#start(queue);
      resolve();
      return true;
    });
    return promise;
  }

  /** The turn has ended; the next one's begins. */
  give(user: User): void {
    const queue = this.#queueOf(user);
    queue.running--;
    this.#running--;
    this.#next();
    if (queue.running === 0 && queue.waiting.length === 0) this.#queues.delete(user);
  }

  #next(): void {
    for (const [user, queue] of this.#queues) {
      while (this.#isFree(queue) && queue.waiting.length > 0) {
        if (queue.waiting.shift()?.() !== true) continue;
        // Behind the others, whose turn it is next.
        this.#queues.delete(user);
        this.#queues.set(user, queue);
        return;
      }
    }
  }

  #start(queue: Queue): void {
    queue.running++;
    this.#running++;
  }

  #isFree(queue: Queue): boolean {
    return this.#running < this.#limits.total && queue.running < this.#limits.each;
  }

  #queueOf(user: User): Queue {
    const known = this.#queues.get(user);
    if (known !== undefined) return known;
    const queue: Queue = { running: 0, waiting: [] };
    this.#queues.set(user, queue);
    return queue;
  }
}
