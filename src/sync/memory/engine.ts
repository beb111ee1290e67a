// The engine of a single process: everything in memory, gone with the process.

import { fixedLayer } from '../../changes/layer-name.ts';
import { IntoAdapter } from '../../changes/into-adapter.ts';
import type { EngineParts, OpenEngine } from '../engine.ts';
import { MemoryAdapter } from './adapter.ts';
import { MemoryMembers, MemoryPresence } from './presence.ts';
import { MemoryTickets } from './tickets.ts';

export interface MemorySettings {
  readonly historyBytesMax: number;
}

const sweepEveryMs = 60_000;

export function openMemory({ historyBytesMax }: MemorySettings, parts: EngineParts): OpenEngine {
  const { incarnation, clock, observer, closing } = parts;
  const adapter = new MemoryAdapter({ clock, observer, historyBytesMax });
  const timer = setInterval(() => adapter.sweep(), sweepEveryMs);
  closing.add('history sweep', () => clearInterval(timer));
  return {
    adapter,
    tickets: new MemoryTickets(clock),
    limits: undefined,
    presence: new MemoryPresence(new MemoryMembers(clock)),
    destination: (ports) => new IntoAdapter(ports),
    layer: fixedLayer(`the memory of process ${incarnation}`),
    follow: (generation) => adapter.follow(generation),
  };
}
