// What the hub reports: connections, commands, publications, deliveries, gaps.
// These calls are on the hot path: children are looked up in our own maps, and counted once per publication.

import { Gauge, Histogram, type Registry } from 'prom-client';
import { limitKinds } from '../core/limits.ts';
import type { HubObserver, PublicationSource } from '../core/observer.ts';
import type { TransportKind } from '../core/outlet.ts';
import { errorCodes } from '../protocol/codes.ts';
import { counter, fromZero } from './counter.ts';
import { Children, CloseCodeLabels, NamespaceLabels } from './namespace-labels.ts';

/** Seconds, from unnoticed to noticed by a person. */
export const delayBuckets = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1];

/** `node`: this node's name, the label `server_id`. */
export function hubMetrics(registry: Registry, node: string, transports: readonly TransportKind[]): HubObserver {
  const namespaces = new NamespaceLabels();
  const codes = new CloseCodeLabels();
  const active = activeConnections(registry, node, transports);
  const connections = counter(
    registry,
    'sobranie_connections_total',
    'Attempts to connect: `accepted`, `refused`, `limit` or `shutting_down`',
    ['transport', 'outcome'],
  );
  const disconnects = counter(registry, 'sobranie_disconnects_total', 'Connections that ended, by close code', [
    'transport',
    'code',
  ]);
  const connectionsOf = new Children((transport) => {
    return new Children((outcome) => connections.labels(transport, outcome));
  });
  const disconnectsOf = new Children((transport) => new Children((code) => disconnects.labels(transport, code)));
  const messagesSent = counter(
    registry,
    'sobranie_messages_sent_total',
    'Deliveries: one publication to 1,000 connections counts 1,000',
    ['type', 'channel'],
  );
  const sentOf = new Children((type) => new Children((channel) => messagesSent.labels(type, channel)));
  const messagesOf = sentOf.of('message');
  const received = counter(registry, 'sobranie_messages_received_total', 'Commands from clients', ['type']);
  const receivedOf = new Children((type) => received.labels(type));
  const publications = counter(
    registry,
    'sobranie_publications_total',
    'Publications accepted on this node, from `client`, `api`, `database` or `server`; none for a repeat by its key',
    ['source', 'channel'],
  );
  const publicationsOf = new Children((source) => new Children((channel) => publications.labels(source, channel)));
  const duration = new Histogram({
    name: 'sobranie_message_delivery_duration_seconds',
    help: 'Seconds from accepted to written to the connections of this node, once per publication',
    buckets: delayBuckets,
    registers: [registry],
  });
  const failures = counter(
    registry,
    'sobranie_broadcast_failures_total',
    'Publications that were not written to all subscribers',
    [],
  );
  const lost = counter(registry, 'sobranie_messages_lost_total', 'Gaps sent to subscribers', ['reason']);
  const lostOf = new Children((reason) => fromZero(lost.labels(reason)), ['trimmed', 'epoch_changed', 'overflow']);
  const recoveries = counter(
    registry,
    'sobranie_recoveries_total',
    'Subscriptions with a position: `recovered`, or `gap`',
    ['outcome'],
  );
  const recoveriesOf = new Children((outcome) => fromZero(recoveries.labels(outcome)), ['recovered', 'gap']);
  const reads = counter(
    registry,
    'sobranie_history_reads_total',
    'Stretches of history that were read: from what this node has `kept`, or from the `log`',
    ['source'],
  );
  const readsOf = new Children((source) => fromZero(reads.labels(source)), ['kept', 'log']);
  const limited = counter(
    registry,
    'sobranie_rate_limited_total',
    'Refused by a limit: `commands`, `subscribes`, `connections`, `connects`, `authentications`, `frames` or `queue`',
    ['kind'],
  );
  const limitedOf = new Children((kind) => fromZero(limited.labels(kind)), limitKinds);
  const errors = counter(registry, 'sobranie_errors_total', 'Errors sent to clients, by code', ['code']);
  const errorsOf = new Children((code) => fromZero(errors.labels(code)), Object.keys(errorCodes));
  return {
    connection(transport, outcome) {
      connectionsOf.of(transport).of(outcome).inc();
      if (outcome === 'accepted') active[transport]?.inc();
    },
    disconnection(transport, code) {
      disconnectsOf.of(transport).of(codes.of(code)).inc();
      active[transport]?.dec();
    },
    received: (type) => receivedOf.of(type).inc(),
    published: (source: PublicationSource, channel) => publicationsOf.of(source).of(namespaces.of(channel)).inc(),
    delivered(channel, count, seconds) {
      // A node without a subscriber has not delivered anything.
      if (count === 0) return;
      messagesOf.of(namespaces.of(channel)).inc(count);
      // The clock of the machine that accepted it may be a little ahead.
      duration.observe(Math.max(0, seconds));
    },
    sent: (type, channel, count) => sentOf.of(type).of(namespaces.of(channel)).inc(count),
    broadcastFailed: () => failures.inc(),
    lost: (reason, count) => lostOf.of(reason).inc(count),
    historyRead: (source) => readsOf.of(source).inc(),
    recovery: (outcome) => recoveriesOf.of(outcome).inc(),
    rateLimited: (kind) => limitedOf.of(kind).inc(),
    error: (code) => errorsOf.of(code).inc(),
  };
}

/** By the transport's name. */
function activeConnections(
  registry: Registry,
  node: string,
  transports: readonly TransportKind[],
): Partial<Record<string, Gauge.Internal<'server_id'>>> {
  const gauges = transports.map(({ name, active }) => {
    const child = new Gauge({ ...active, labelNames: ['server_id'], registers: [registry] }).labels(node);
    child.set(0);
    return [name, child] as const;
  });
  return Object.fromEntries(gauges);
}
