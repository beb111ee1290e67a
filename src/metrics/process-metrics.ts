// The process's own metrics: memory, CPU, event loop. The metrics library has a set of its own, but this runtime
// answers several of its sources with zeros or wrong values.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, type Registry } from 'prom-client';

const lagStatistics = { p50: 50, p99: 99, max: 100 } as const;
const nanosecondsPerSecond = 1e9;

/**
 * Adds the process's metrics to the registry. Call the returned function to stop measuring. `node` is the label
 * `server_id`: nodes that answer a scrape together are processes of their own.
 */
export function addProcessMetrics(registry: Registry, node: string): () => void {
  const registers = [registry];
  const labelNames = ['server_id'] as const;
  const own = { server_id: node };
  const startedAt = Date.now() / 1_000 - process.uptime();
  new Gauge({
    name: 'process_start_time_seconds',
    help: 'When the process started, in Unix seconds',
    labelNames,
    registers,
  }).set(own, startedAt);
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Bytes of resident memory of the process',
    labelNames,
    registers,
    collect() {
      this.set(own, process.memoryUsage.rss());
    },
  });
  new Gauge({
    name: 'sobranie_heap_used_bytes',
    help: 'Bytes of the JavaScript heap in use',
    labelNames,
    registers,
    collect() {
      this.set(own, process.memoryUsage().heapUsed);
    },
  });
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Processor seconds that the process has used, user and system',
    labelNames,
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc(own, (user + system) / 1e6);
    },
  });
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  new Gauge({
    name: 'sobranie_event_loop_lag_seconds',
    help: 'Seconds that timers were late since the last scrape: `p50`, `p99` and `max`',
    labelNames: ['server_id', 'statistic'],
    registers,
    collect() {
      for (const [statistic, percent] of Object.entries(lagStatistics)) {
        // percentile(100) is only the upper edge of a histogram's bucket; `max` is exact.
        const lag = percent === 100 ? delay.max : delay.percentile(percent);
        this.set({ ...own, statistic }, lag / nanosecondsPerSecond);
      }
      delay.reset();
    },
  });
  return () => {
    delay.disable();
  };
}
