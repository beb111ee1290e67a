// Chooses the sync adapter. A new one is a file under src/sync and a case here.

import type { Clock } from '../core/clock.ts';
import type { SyncObserver } from '../core/observer.ts';
import type { SyncAdapter } from '../core/sync-adapter.ts';
import { MemoryAdapter } from '../sync/memory.ts';
import type { CloseStack } from './close-stack.ts';
import type { Database } from './database.ts';
import type { Logger } from './logger.ts';
import type { Settings } from './settings.ts';

export interface AdapterParts {
  readonly settings: Settings;
  readonly database: Database | undefined;
  readonly observer: SyncObserver;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

const sweepEveryMs = 60_000;

export function createAdapter(parts: AdapterParts): SyncAdapter {
  const { settings } = parts;
  switch (settings.sync) {
    case 'memory':
      return createMemory(parts);
    default:
      throw new Error('not yet');
  }
}

function createMemory({ settings, clock, observer, closing }: AdapterParts): MemoryAdapter {
  const adapter = new MemoryAdapter({ clock, observer, historyBytesMax: settings.historyBytesMax });
  const timer = setInterval(() => adapter.sweep(), sweepEveryMs);
  closing.add('history sweep', () => clearInterval(timer));
  return adapter;
}
