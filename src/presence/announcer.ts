// Tells this node's listeners what changed in a channel: one frame per change, encoded once for all of them.

import type { Fanout, PresencePush } from '../core/outlet.ts';
import { presenceChangeFrame, presenceFrame, type PresenceList } from '../protocol/frames.ts';
import type { Told } from './store.ts';

export interface AnnouncerPorts {
  /** Connections of this node that are told. */
  readonly listeners: (channel: string) => number;
  /** `count` connections got a frame of the type. */
  readonly sent: (type: string, channel: string, count: number) => void;
  readonly log: (message: string, error: unknown) => void;
}

export class Announcer {
  readonly #ports: AnnouncerPorts;
  readonly #fanouts: Fanout[] = [];

  constructor(ports: AnnouncerPorts) {
    this.#ports = ports;
  }

  attach(fanout: Fanout): void {
    this.#fanouts.push(fanout);
  }

  changed(channel: string, told: readonly Told[]): void {
    if (this.#ports.listeners(channel) === 0) return;
    const pushes = told.map((change) => ({
      type: change.kind,
      frame: presenceChangeFrame(change.kind, channel, change),
    }));
    this.#write(channel, pushes);
  }

  /** Whoever listens forgets what it knew. */
  fresh(channel: string, list: PresenceList): void {
    if (this.#ports.listeners(channel) === 0) return;
    this.#write(channel, [{ type: 'presence', frame: presenceFrame(undefined, channel, list) }]);
  }

  #write(channel: string, pushes: readonly PresencePush[]): void {
    for (const fanout of this.#fanouts) {
      try {
        fanout.presence(channel, pushes);
      } catch (error) {
        this.#ports.log('a change of presence could not be fanned out', error);
      }
    }
    const count = this.#ports.listeners(channel);
    for (const { type } of pushes) this.#ports.sent(type, channel, count);
  }
}
