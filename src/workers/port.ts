// Checks the port that the workers will share. The kernel lets any process of the same user join a shared port, even
// another server that was started by mistake; clients would then be spread over both. So the keeper first takes the
// port for itself, which fails while any program listens on it, and then releases it for the workers.

import { createServer } from 'node:net';
import { listenFault } from '../app/listen-fault.ts';
import { systemErrorCode } from '../embedded/embedded-error.ts';

/** Workers whose keeper was killed need a moment to end. */
const waitMs = 5_000;
const pollMs = 100;

/** Resolves with the port; for 0 with a free one. Rejects with a `SettingsError` if it is still taken after some seconds. */
export async function claimPort(host: string, port: number): Promise<number> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    try {
      return await listenOnce(host, port);
    } catch (error) {
      if (systemErrorCode(error) !== 'EADDRINUSE' || performance.now() > deadline)
        throw listenFault(error, { host, port });
      await Bun.sleep(pollMs);
    }
  }
}

async function listenOnce(host: string, port: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const server = createServer().once('error', reject);
  server.listen({ host, port, exclusive: true }, () => {
    const address = server.address();
    server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : port));
  });
  return promise;
}
