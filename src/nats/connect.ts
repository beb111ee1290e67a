// A connection to NATS: where it leads and as whom it enters. How it behaves is its user's affair.

import { connect, credsAuthenticator, type ConnectionOptions, type NatsConnection } from '@nats-io/transport-node';
import { accessFailure } from './failure.ts';
import type { NatsTarget } from './target.ts';

/** Rejects when none of the servers lets it in, with a `NatsFailure` where what leads there has to be mended. */
export async function connectNats(target: NatsTarget, behaviour: ConnectionOptions): Promise<NatsConnection> {
  try {
    return await connect(optionsOf(target, behaviour));
  } catch (error) {
    throw accessFailure(error);
  }
}

function optionsOf(target: NatsTarget, behaviour: ConnectionOptions): ConnectionOptions {
  const { servers, account, credentials, tls, tlsCa } = target;
  return {
    servers: [...servers],
    ...account,
    ...(credentials === undefined ? {} : { authenticator: credsAuthenticator(new TextEncoder().encode(credentials)) }),
    ...(tls ? { tls: tlsCa === undefined ? {} : { ca: tlsCa } } : {}),
    timeout: 5_000,
    pingInterval: 2_000,
    maxPingOut: 2,
    // Where a request was made is not worth a stack trace for each.
    noAsyncTraces: true,
    ...behaviour,
  };
}
