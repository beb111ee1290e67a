// Preloaded into the node whose memory a soak watches. Every few seconds it collects all garbage and appends a line to
// HEAP_FILE: what is in use then, and how many objects of each type. The collector by itself leaves garbage of an earlier
// minute lying for many minutes, and a heap that was not collected says nothing about what is still held.

import { heapStats } from 'bun:jsc';
import { appendFileSync } from 'node:fs';
import type { Sample } from './slope.ts';

const everyMs = 10_000;
const file = process.env['HEAP_FILE'];

function sample(): Sample {
  Bun.gc(true);
  const { heapSize, objectTypeCounts } = heapStats();
  return { seconds: Date.now() / 1_000, megabytes: heapSize / 1e6, types: objectTypeCounts };
}

if (file !== undefined) setInterval(() => appendFileSync(file, `${JSON.stringify(sample())}\n`), everyMs).unref();
