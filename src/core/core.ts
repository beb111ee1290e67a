// Puts the core of a node together. Each part is given what it needs, and nothing is looked up through another.

import type { Clock } from '../time/clock.ts';
import type { Rules } from '../rules/rules.ts';
import type { Access, Authenticate } from './access.ts';
import type { Cluster } from './cluster.ts';
import { Commands } from './commands.ts';
import { Denials } from './denials.ts';
import { Doubts } from './doubts.ts';
import { Failures } from './failures.ts';
import { Hub, type HubOptions } from './hub.ts';
import type { Limits } from './limits.ts';
import type { HubObserver } from './observer.ts';
import type { Occupancy } from './occupancy.ts';
import type { Presence } from './presence.ts';
import { Recoveries } from './recoveries.ts';
import { Sessions, type SessionsOptions } from './sessions.ts';
import { Slices } from './slices.ts';
import type { Snapshots } from './snapshot.ts';
import { Subscribing } from './subscribing.ts';
import type { Subscription } from './subscription.ts';
import type { SyncAdapter } from './sync-adapter.ts';
import { Users } from './users.ts';

export interface CoreOptions extends HubOptions {
  readonly nodeId: string;
  /** Begins the ids of this node's connections: other nodes find it by that. Letters and digits. */
  readonly connectionPrefix: string;
  readonly heartbeatSeconds: number;
  readonly channelsPerConnectionMax: number;
}

export interface CorePorts {
  readonly adapter: SyncAdapter;
  readonly rules: Rules;
  readonly access: Access;
  readonly snapshots: Snapshots;
  readonly presence: Presence;
  readonly limits: Limits;
  readonly authenticate: Authenticate;
  readonly observer: HubObserver;
  readonly occupancy: Occupancy;
  readonly clock: Clock;
  /** All nodes together, this one among them; undefined before it has joined them. */
  readonly cluster: () => Cluster | undefined;
  /** Where failures go that no client is told in detail. */
  readonly log: (message: string, error: unknown) => void;
  /** A connection ended. */
  readonly ended?: SessionsOptions['ended'];
}

export interface Core {
  readonly hub: Hub;
  readonly sessions: Sessions;
  readonly subscribing: Subscribing;
  readonly users: Users;
  readonly failures: Failures;
  /** In which crowds are served, by the number of publications sent. */
  readonly slices: Slices;
}

/** What one turn of the event loop takes on of what a crowd asks for, in publications sent: a few milliseconds. */
const sliceCost = 1_000;

export function createCore(options: CoreOptions, ports: CorePorts): Core {
  const { access, snapshots, presence, limits, authenticate, observer, clock, cluster, log } = ports;
  const { nodeId, connectionPrefix, heartbeatSeconds, channelsPerConnectionMax } = options;
  const failures = new Failures(observer, log);
  const recoveries = new Recoveries(failures);
  const slices = new Slices(sliceCost);
  const hub = new Hub(options, { ...ports, slices });
  const subscribing = new Subscribing({
    hub,
    access,
    presence,
    slices,
    cluster,
    observer,
    failures,
    recoveries,
    snapshots,
    channelsPerConnectionMax,
  });
  const isExempt = (subscription: Subscription): boolean => subscribing.isByBackend(subscription);
  const doubts = new Doubts({ hub, recoveries, failures, clock });
  const denials = new Denials({ hub, access, presence, failures, doubts, isExempt });
  const commands = new Commands({
    hub,
    snapshots,
    denials,
    access,
    presence,
    limits,
    authenticate,
    cluster,
    observer,
    clock,
  });
  const sessions = new Sessions({
    nodeId,
    heartbeatSeconds,
    connectionPrefix,
    hub,
    denials,
    commands,
    subscribing,
    access,
    limits,
    observer,
    occupancy: ports.occupancy,
    failures,
    slices,
    clock,
    ended: ports.ended,
  });
  const users = new Users({ nodeId, sessions, hub, subscribing, observer, failures });
  return { hub, sessions, subscribing, users, failures, slices };
}
