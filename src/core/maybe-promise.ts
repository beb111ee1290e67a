// For what is mostly known at once: hot paths stay synchronous, and allocate no promise, where nothing has to be waited for.

/** Of adapters in this process above all: what they answer at once keeps fan-out in one write. */
export type MaybePromise<T> = T | Promise<T>;

/** Goes on with the value: at once if it is known already. */
export function whenKnown<Value, Next>(
  value: MaybePromise<Value>,
  goOn: (value: Value) => MaybePromise<Next>,
): MaybePromise<Next> {
  return value instanceof Promise ? value.then(goOn) : goOn(value);
}
