// Typed events, and the way in which a listener's own failure is told: to the runtime, never to the other listeners.

export type Listener<Event> = (event: Event) => void;

/** Ends what was begun: a subscription, a listener. Calling it again does nothing. */
export type Stop = () => void;

export class Emitter<Events> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): Stop {
    const listeners = this.#listeners.get(name) ?? new Set();
    // A new function for each, so that the same listener may listen twice. Whoever stops hears nothing more.
    const own: Listener<Events[Name]> = (event) => {
      if (listeners.has(own)) listener(event);
    };
    this.#listeners.set(name, listeners.add(own));
    return () => void listeners.delete(own);
  }

  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    // Whoever begins to listen meanwhile hears of the next event.
    for (const listener of [...(this.#listeners.get(name) ?? [])]) call(listener as Listener<Events[Name]>, event);
  }
}

/** A listener that throws harms nobody else; its error is reported as any uncaught one. */
export function call<Event>(listener: Listener<Event>, event: Event): void {
  try {
    listener(event);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
