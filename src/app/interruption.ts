// A start that a signal ends. It may wait for a database or a Redis that is away, and whoever stops the process does not
// want to wait for these too: what was opened is closed at once.

/** The start was given up, since the process is to end. */
export class StartInterrupted extends Error {
  constructor() {
    super('the start was interrupted');
    this.name = 'StartInterrupted';
  }
}

/** As the promise, or rejects with `StartInterrupted` when the signal is aborted first. The promise itself goes on. */
export async function unlessInterrupted<Value>(work: Promise<Value>, signal: AbortSignal | undefined): Promise<Value> {
  if (signal === undefined) return work;
  const interruption = Promise.withResolvers<never>();
  const interrupt = (): void => interruption.reject(new StartInterrupted());
  signal.addEventListener('abort', interrupt);
  if (signal.aborted) interrupt();
  try {
    return await Promise.race([work, interruption.promise]);
  } finally {
    signal.removeEventListener('abort', interrupt);
  }
}
