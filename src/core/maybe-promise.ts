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

/**
 * The answers for all items, in their order, asked at once. One item is the most frequent by far: what is known of it is
 * answered without a promise. Rejects, or throws, with the first failure; no other one goes unhandled.
 */
export function mapKnown<Item, Value>(
  items: readonly Item[],
  ask: (item: Item, index: number) => MaybePromise<Value>,
): MaybePromise<Value[]> {
  const [only] = items;
  if (only === undefined) return [];
  if (items.length === 1) {
    const value = ask(only, 0);
    return value instanceof Promise ? value.then(alone) : [value];
  }
  return Promise.all(items.map(async (item, index) => ask(item, index)));
}

function alone<Value>(value: Value): Value[] {
  return [value];
}
