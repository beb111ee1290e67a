// The port that workers will share. The kernel lets any process of the same user join a shared port, also another
// server started by mistake, whose clients would then be spread over both. So it is first taken alone, which fails
// while anyone listens, and given up for the workers.

import { createServer } from 'node:net';
import { systemErrorCode } from '../embedded/embedded-error.ts';

/** Workers whose main process was killed need a moment to leave. */
const waitMs = 5_000;
const pollMs = 100;

/** Resolves with the port, a free one for 0. Rejects as listening does, if it is still taken after a few seconds. */
export async function claimPort(host: string, port: number): Promise<number> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    try {
      return await listenOnce(host, port);
    } catch (error) {
      if (systemErrorCode(error) !== 'EADDRINUSE' || performance.now() > deadline) throw error;
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
