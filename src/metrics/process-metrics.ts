// The process's own metrics: memory, CPU, event loop. Written here because the ready-made set of the metrics library
// reads sources that this runtime answers with zeros or with nonsense.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, type Registry } from 'prom-client';

const lagQuantiles = [0.5, 0.99, 1];
const nanosecondsPerSecond = 1e9;

/** Adds the process's metrics to the registry. The answer ends what was started for it. */
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
        // percentile(100) is the upper edge of a histogram's bucket; the largest value itself is known better.
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
