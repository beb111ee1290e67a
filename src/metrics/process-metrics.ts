// The process's own metrics: memory, CPU, event loop. The metrics library has a set of its own, but this runtime
// answers several of its sources with zeros or wrong values.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, type Registry } from 'prom-client';

const lagQuantiles = [0.5, 0.99, 1];
const nanosecondsPerSecond = 1e9;

/** Adds the process's metrics to the registry. Call the returned function to stop measuring. */
export function addProcessMetrics(registry: Registry): () => void {
  const registers = [registry];
  const startedAt = Date.now() / 1_000 - process.uptime();
  new Gauge({
    name: 'process_start_time_seconds',
    help: 'When the process started, in Unix seconds',
    registers,
  }).set(startedAt);
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Bytes of resident memory of the process',
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Gauge({
    name: 'sobranie_heap_used_bytes',
    help: 'Bytes of the JavaScript heap in use',
    registers,
    collect() {
      this.set(process.memoryUsage().heapUsed);
    },
  });
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Processor seconds that the process has used, user and system',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  new Gauge({
    name: 'sobranie_event_loop_lag_seconds',
    help: 'Seconds that timers were late since the last scrape',
    labelNames: ['quantile'],
    registers,
    collect() {
      for (const quantile of lagQuantiles) {
        // percentile(100) is only the upper edge of a histogram's bucket; `max` is exact.
        const lag = quantile === 1 ? delay.max : delay.percentile(quantile * 100);
        this.set({ quantile: String(quantile) }, lag / nanosecondsPerSecond);
      }
      delay.reset();
    },
  });
  return () => {
    delay.disable();
  };
}
