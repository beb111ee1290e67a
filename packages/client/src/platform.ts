// What the client takes from where it runs: time, chance, network. Everything can be given instead, which is how tests
// move the clock and how Node 20, which has no WebSocket of its own, gets one.

/** The part of the browser's WebSocket that is used; the one of the package `ws` fits as well. */
export interface WebSocketLike {
  binaryType?: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export interface Platform {
  /** Milliseconds that never go back; only differences count. */
  readonly now: () => number;
  /** Milliseconds by the wall's clock, which jumps when it is set and goes on while a machine sleeps. */
  readonly wallClock: () => number;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly setTimeout: (run: () => void, ms: number) => unknown;
  readonly clearTimeout: (timer: never) => void;
  readonly fetch: ((url: string, init?: RequestInit) => Promise<Response>) | undefined;
  readonly WebSocket: (new (url: string, protocols?: string[]) => WebSocketLike) | undefined;
}

/** Where there is no page, each of these is missing. */
interface Page {
  readonly document?: PageEvents & { readonly visibilityState: string };
  readonly addEventListener?: PageEvents['addEventListener'];
  readonly removeEventListener?: PageEvents['removeEventListener'];
  readonly location?: { readonly href: string };
  readonly localStorage?: Storage;
  readonly sessionStorage?: Storage;
  readonly navigator?: { readonly locks?: LocksLike };
  readonly Worker?: new (url: string) => WorkerLike;
}

/** The part of Web Locks that is used. */
export interface LocksLike {
  request(
    name: string,
    options: { readonly steal?: boolean },
    run: () => Promise<void> | undefined | void,
  ): Promise<unknown>;
}

export interface WorkerLike {
  onmessage: (() => void) | null;
  terminate(): void;
}

interface PageEvents {
  addEventListener(type: string, listener: (event: { readonly type: string }) => void): void;
  removeEventListener(type: string, listener: (event: { readonly type: string }) => void): void;
}

/** Where positions are kept over a reload; `sessionStorage` is one. */
export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

type Storage = PositionStorage;

export const page = globalThis as unknown as Page;

export function platformOf(given: Partial<Platform> = {}): Platform {
  const here = globalThis as unknown as Platform;
  return {
    now: () => performance.now(),
    wallClock: Date.now,
    random: Math.random,
    setTimeout: (run, ms) => here.setTimeout(run, ms),
    clearTimeout: (timer) => here.clearTimeout(timer),
    fetch: here.fetch && ((url, init) => fetch(url, init)),
    WebSocket: here.WebSocket,
    ...given,
  };
}

/** A storage that may be forbidden or full is worth no failure. */
export function quietly<Result>(attempt: () => Result): Result | undefined {
  try {
    return attempt();
  } catch {
    return undefined;
  }
}
