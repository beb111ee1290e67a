// The engine over NATS JetStream, for publications. Tickets, counts and presence are in the nodes' database, whose
// stores the row hands over: its transactions do in one step what a key-value store needs several tries for.

import { IntoAdapter } from '../../changes/into-adapter.ts';
import type { EngineParts, OpenEngine } from '../engine.ts';
import { NatsAdapter } from './adapter.ts';
import { NatsLayerName } from './layer-name.ts';
import { NatsNames } from './names.ts';
import { parseNatsUrl } from '../../nats/target.ts';

export interface NatsSettings {
  readonly url: string;
  readonly credentials: string | undefined;
  readonly tlsCa: string | undefined;
  /** Begins the names of streams and subjects, so that several clusters of servers can share one NATS. */
  readonly prefix: string;
  readonly replicas: number | undefined;
  readonly keySeconds: number;
}

export type NatsStores = Pick<OpenEngine, 'tickets' | 'limits' | 'presence'>;

export function openNats(settings: NatsSettings, parts: EngineParts, stores: NatsStores): OpenEngine {
  const { url, credentials, tlsCa, prefix, replicas, keySeconds } = settings;
  const { incarnation, observer, clock, log } = parts;
  const names = new NatsNames(prefix);
  const adapter = new NatsAdapter({
    target: { ...parseNatsUrl(url), credentials, tlsCa },
    names,
    nodeId: incarnation,
    clock,
    replicas,
    keySeconds,
    observer,
    waiting: (error) => log.warn({ err: error }, 'waiting for NATS'),
    log: (message, error) => log.error({ err: error }, message),
  });
  return {
    adapter,
    ...stores,
    destination: (ports) => new IntoAdapter(ports),
    layer: new NatsLayerName({ client: () => adapter.client, names, clock }),
    follow: (generation) => adapter.follow(generation),
  };
}
