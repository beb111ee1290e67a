// Preloaded into a server of the bench: what the hub and the sync layer report while they work goes nowhere. Gauges that
// are read at a scrape stay.

const silent = `
const nothing = () => undefined;
const observer = new Proxy({}, { ownKeys: () => names, get: () => nothing,
  getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true, value: nothing }) });
const names = ['connection', 'disconnection', 'received', 'published', 'delivered', 'sent', 'broadcastFailed', 'lost',
  'historyRead', 'recovery', 'rateLimited', 'error', 'up', 'message', 'delay', 'reconnected', 'failed'];
export const delayBuckets = [];
export const hubMetrics = () => observer;
export const syncMetrics = () => observer;
`;

Bun.plugin({
  name: 'without metrics',
  setup(build) {
    build.onLoad({ filter: /src\/metrics\/(?:hub|sync)-metrics\.ts$/ }, () => ({ contents: silent, loader: 'js' }));
  },
});
