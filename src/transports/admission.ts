// Who is let in, for both transports: whether this node has room, whether the address and the user may have one more
// connection, and who the user is. Answers at once where nobody has to be asked: what a request allocates stays in the
// memory of idle connections.
//
// A crowd is let in by slices, in which it takes its turns with those who recover already. Hundreds of handshakes arrive
// in one turn of the event loop; all of them at once would keep everybody else waiting for a tenth of a second.

import type { Authenticate, Identity } from '../core/access.ts';
import type { Failures } from '../core/failures.ts';
import { noteFailure, refusalError, type Caller, type Limits, type Refusal } from '../core/limits.ts';
import type { HubObserver } from '../core/observer.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Slices } from '../core/slices.ts';
import { whenKnown, type MaybePromise } from '../core/maybe-promise.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Origins } from '../http/origins.ts';
import { tokenOf } from '../http/request.ts';
import type { RefusalLog } from './refusal-log.ts';

export interface AdmissionOptions {
  readonly sessions: Sessions;
  readonly slices: Slices;
  readonly limits: Limits;
  readonly observer: HubObserver;
  readonly failures: Failures;
  readonly authenticate: Authenticate;
  readonly origins: Origins;
  /** Both transports together. */
  readonly connectionsMax: number;
  readonly isShuttingDown: () => boolean;
  /** What clients are counted by; undefined while addresses are not limited. */
  readonly addressOf: ((request: Request) => string | undefined) | undefined;
  readonly refusals: RefusalLog;
}

/** What it costs to let a connection in, in publications sent. */
const admissionCost = 20;

/** This node accepts no connection at all; another one might. */
export class NodeUnavailable extends RealtimeError {}

export interface Visitor {
  readonly identity: Identity;
  readonly address: string | undefined;
}

export class Admission {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * Calls `open` for a visitor who may connect, at the moment in which that is certain. Throws, or rejects with, the
   * error that the visitor gets.
   */
  admit<Opened>(
    request: Request,
    query: URLSearchParams,
    open: (visitor: Visitor) => MaybePromise<Opened>,
  ): MaybePromise<Opened> {
    const { slices, addressOf } = this.#options;
    this.#requireRoomHere();
    const address = addressOf?.(request);
    const turn = slices.take(admissionCost);
    const arrive = () => this.#arrive(request, query, address, open);
    return turn === undefined ? arrive() : turn.then(arrive);
  }

  #arrive<Opened>(
    request: Request,
    query: URLSearchParams,
    address: string | undefined,
    open: (visitor: Visitor) => MaybePromise<Opened>,
  ): MaybePromise<Opened> {
    const { limits } = this.#options;
    return whenKnown(limits.arrival(address), (refusal) => {
      this.#refuse(refusal);
      return whenKnown(this.#identify(request, query, address), (identity) => this.#enter({ identity, address }, open));
    });
  }

  /** Counts the channels of a connection that was let in. Throws, or rejects with, `rate_limited`. */
  subscribe(caller: Caller, channels: number): MaybePromise<void> {
    return whenKnown(this.#options.limits.subscribe(caller, channels), ({ refusal }) => this.#refuse(refusal));
  }

  /** Counts and logs an attempt that was refused; answers the error that the client gets. */
  refused(transport: string, request: Request, error: unknown): RealtimeError {
    const { observer, failures, refusals } = this.#options;
    const expected = failures.expected(error);
    refusals.note(transport, request, expected);
    const isLimit = expected.code === 'limit_exceeded' || expected.code === 'rate_limited';
    if (expected.code === 'shutting_down') observer.connection(transport, 'shutting_down');
    else observer.connection(transport, isLimit ? 'limit' : 'refused');
    return expected;
  }

  #identify(request: Request, query: URLSearchParams, address: string | undefined): MaybePromise<Identity> {
    const { limits, authenticate, origins } = this.#options;
    const token = tokenOf(request, query, origins.trustsCookies(request));
    if (address === undefined || token === undefined) return authenticate(token);
    this.#refuse(limits.authentication(address));
    return noteFailure(limits, address, () => authenticate(token));
  }

  #enter<Opened>(visitor: Visitor, open: (visitor: Visitor) => MaybePromise<Opened>): MaybePromise<Opened> {
    const { limits } = this.#options;
    const { identity, address } = visitor;
    const enter = () => {
      // Others may have come in while this one was waited for.
      this.#requireRoomHere();
      this.#refuse(limits.connection(identity, address));
      return open(visitor);
    };
    return limits.countConnections(identity, address)?.then(enter) ?? enter();
  }

  #requireRoomHere(): void {
    const { sessions, observer, connectionsMax, isShuttingDown } = this.#options;
    if (isShuttingDown()) throw new NodeUnavailable('shutting_down');
    if (sessions.size < connectionsMax) return;
    observer.rateLimited('connections');
    throw new NodeUnavailable('limit_exceeded', 'The server has no room for more connections.', { retryAfter: 10 });
  }

  #refuse(refusal: Refusal | undefined): void {
    if (refusal === undefined) return;
    this.#options.observer.rateLimited(refusal.kind);
    throw refusalError(refusal);
  }
}
