// Preloaded into a server whose memory is measured. Whoever connects to the socket MEMORY_PROBE is told what the process
// holds after all garbage was collected: what a server has not collected yet is by far more than what is looked for.

import { heapStats } from 'bun:jsc';
import type { HeldMemory } from './member-memory.ts';

const pauseMs = 250;
const looksMax = 12;
/** The last of so many looks differ by less than this where nothing is given back any more. */
const stillBytes = 128 << 10;
const stillLooks = 4;

async function held(): Promise<HeldMemory> {
  const rss: number[] = [];
  // Pages of what was collected are given back to the system by and by.
  for (let look = 0; look < looksMax; look++) {
    Bun.gc(true);
    await Bun.sleep(pauseMs);
    rss.push(process.memoryUsage.rss());
    const last = rss.slice(-stillLooks);
    if (last.length === stillLooks && Math.max(...last) - Math.min(...last) < stillBytes) break;
  }
  const { heapSize, heapCapacity, extraMemorySize } = heapStats();
  return { rss: rss.at(-1) ?? 0, heap: heapSize, heapCapacity, extra: extraMemorySize };
}

const unix = process.env['MEMORY_PROBE'];
let collecting = false;
let found: HeldMemory | undefined;

/** Answers at once: 202 until it is known. */
function answer(): Response {
  if (found !== undefined) {
    const response = Response.json(found);
    found = undefined;
    return response;
  }
  if (!collecting) {
    collecting = true;
    void held().then((memory) => {
      collecting = false;
      found = memory;
    });
  }
  return new Response(null, { status: 202 });
}

if (unix !== undefined) Bun.serve({ unix, fetch: answer });
