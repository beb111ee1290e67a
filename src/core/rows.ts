// The rows with which a subscription begins: takes them, and lets the subscription go on from where they are true.
//
// Rows may be shared and a moment old. The log must still hold what came after them, and a client that was live must
// not be led back behind what it has seen; where they do not fit, others are taken.

import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Connection } from './connection.ts';
import type { Beginning } from './members.ts';
import type { Snapshot, Snapshots } from './snapshot.ts';
import type { SubscribeRequest } from './subscription.ts';

/** Under a flood of changes the log may not hold for long what came after the rows. */
const attemptsMax = 3;

export class Rows {
  readonly #snapshots: Snapshots;

  constructor(snapshots: Snapshots) {
    this.#snapshots = snapshots;
  }

  /** Rejects with `unavailable` when they cannot be taken. */
  async take(connection: Connection, beginning: Beginning, wish: SubscribeRequest['snapshot']): Promise<void> {
    const { channel, wantsRows, recovered } = beginning;
    if (wish === undefined || recovered) return;
    if (wantsRows && this.#snapshots.has(channel.name)) await this.#take(connection, beginning);
    else if (wish === 'needed') throw new RealtimeError('bad_request', `No rule says which rows ${channel.name} has.`);
  }

  async #take(connection: Connection, beginning: Beginning): Promise<void> {
    const { channel, subscription, seen } = beginning;
    const { identity, account, outlet } = connection;
    const from = channel.position;
    const tried = new Set<Snapshot>();
    const isUsable = (snapshot: Snapshot): boolean => {
      if (tried.has(snapshot) || snapshot.position.epoch !== channel.epoch) return false;
      return seen === undefined || snapshot.position.epoch !== from.epoch || snapshot.position.offset >= from.offset;
    };
    for (let attempt = 1; ; attempt++) {
      const snapshot = await this.#snapshots.take(channel, { identity, account, isUsable });
      if (connection.closed) return;
      const isTheirs = connection.subscription(channel.name) === subscription;
      if (!isTheirs || subscription.phase === 'suspended') throw new RealtimeError('unavailable');
      beginning.recovery = channel.members.beginWith(subscription, snapshot);
      if ((await beginning.recovery.prepare()) || attempt === attemptsMax) break;
      tried.add(snapshot);
    }
    beginning.takesRows = true;
    beginning.lost = undefined;
    outlet.awaitSnapshot(channel.name);
  }
}
