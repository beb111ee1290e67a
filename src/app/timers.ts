// What a node does every few seconds, asked by nobody: it ends what has expired, cuts the slowest readers, and tells `$system`.

import { totalmem } from 'node:os';
import { BufferBudget } from '../core/buffer-budget.ts';
import type { Failures } from '../core/failures.ts';
import type { Hub } from '../core/hub.ts';
import type { Sessions } from '../core/sessions.ts';
import { Broadcast } from '../nodes/broadcast.ts';
import type { Settings } from '../settings/settings.ts';
import type { Clock } from '../time/clock.ts';
import type { CloseStack } from './close-stack.ts';
import type { Logger } from './logger.ts';

const expiryEveryMs = 1_000;
const keptSweepEveryMs = 5_000;

export interface TimerParts {
  readonly settings: Settings;
  readonly hub: Hub;
  readonly sessions: Sessions;
  readonly failures: Failures;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

export function startTimers({ settings, hub, sessions, failures, clock, log, closing }: TimerParts): void {
  const expiry = setInterval(() => sessions.expire(), expiryEveryMs);
  closing.add('token expiry', () => clearInterval(expiry));
  const sweep = setInterval(() => hub.sweep(), keptSweepEveryMs);
  closing.add('kept history', () => clearInterval(sweep));
  const budget = new BufferBudget({
    sessions,
    bytesMax: settings.maxBufferedBytesTotal ?? totalmem() / 4,
    onCut: (cut) => log.warn(cut, 'slow readers together cost too much memory: the slowest were cut off'),
  });
  budget.start();
  closing.add('buffer budget', () => budget.close());
  const broadcast = new Broadcast({
    hub,
    sessions,
    failures,
    clock,
    nodeId: settings.nodeId,
    intervalSeconds: settings.broadcastInterval,
  });
  broadcast.start();
  closing.add('broadcast', () => broadcast.close());
}
