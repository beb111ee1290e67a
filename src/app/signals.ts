// The signals on which the process shuts down in order.

import { readFileSync } from 'node:fs';

const sighupBit = 1n;

/**
 * SIGHUP comes when the terminal closes. A process that was started to outlive its terminal, as `nohup` does, ignores it
 * from its start: then it is not handled, since a handler would end the process.
 */
export function shutdownSignals(): readonly NodeJS.Signals[] {
  return (ignoredSignals() & sighupBit) === sighupBit ? ['SIGTERM', 'SIGINT'] : ['SIGTERM', 'SIGINT', 'SIGHUP'];
}

/** One bit for each, from the lowest for signal 1. 0 where the system does not tell. */
function ignoredSignals(): bigint {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    return mask === undefined ? 0n : BigInt(`0x${mask}`);
  } catch {
    // Not Linux.
    return 0n;
  }
}
