// A connection to NATS: where it leads and as whom it enters. How it behaves is its user's affair.

import { connect, credsAuthenticator, type ConnectionOptions, type NatsConnection } from '@nats-io/transport-node';
import type { NatsTarget } from './target.ts';

/** Rejects when none of the servers lets it in. */
export function connectNats(target: NatsTarget, behaviour: ConnectionOptions): Promise<NatsConnection> {
  const { servers, account, credentials, tls, tlsCa } = target;
  return connect({
    servers: [...servers],
    ...account,
    ...(credentials === undefined ? {} : { authenticator: credsAuthenticator(new TextEncoder().encode(credentials)) }),
    ...(tls ? { tls: tlsCa === undefined ? {} : { ca: tlsCa } } : {}),
    timeout: 5_000,
    pingInterval: 2_000,
    maxPingOut: 2,
    ...behaviour,
  });
}
