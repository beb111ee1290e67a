// Deadlines: how long a promise is waited for. The one place where a promise races a timer, so that every timer is
// cleared when the promise settles first.

/** A promise did not settle in time. */
export class DeadlineError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'DeadlineError';
  }
}

/**
 * The promise's value. Rejects as the promise does, or with a `DeadlineError`, "<what> took over <milliseconds> ms".
 * The promise itself goes on; how it settles after the deadline is ignored.
 */
export async function within<Value>(promise: PromiseLike<Value>, milliseconds: number, what: string): Promise<Value> {
  const deadline = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => deadline.reject(new DeadlineError(`${what} took over ${milliseconds} ms`)),
    milliseconds,
  );
  try {
    return await Promise.race([promise, deadline.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether the promise is fulfilled in time. Rejects as the promise does. */
export async function isDoneWithin(promise: PromiseLike<unknown>, milliseconds: number): Promise<boolean> {
  try {
    await within(promise, milliseconds, 'it');
    return true;
  } catch (error) {
    if (error instanceof DeadlineError) return false;
    throw error;
  }
}
