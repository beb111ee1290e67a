// Between nodes: what the way over Redis, PostgreSQL, NATS, RabbitMQ and Kafka costs beside the bare thing and beside Socket.IO, each as
// ratios taken inside rounds. The last table holds every ratio against the bar that it is meant to clear; a bar missed
// is told and not failed, since a busy machine may miss one.
import type { Bar, BenchOptions } from './options.ts';
import { startDatabase } from './postgres.ts';
import { startKafka, startNats, startRabbit, type Broker } from './sync-brokers.ts';
import { raceCluster } from './sync-cluster.ts';
import { raceDelay } from './sync-delay.ts';
import { startNodes, startRedis, stopNodes, type BenchRedis, type Nodes } from './sync-nodes.ts';
import { raceBroker, raceScript } from './sync-script.ts';
import { raceSend } from './sync-send.ts';
import { printBars } from './table.ts';

export async function sync(options: BenchOptions): Promise<void> {
  const stores = [...(await overRedis(options)), ...(await overPostgres(options))];
  const brokers: Bar[] = [];
  for (const start of [startNats, startRabbit, startKafka]) brokers.push(...(await overBroker(start, options)));
  printBars([...stores, ...brokers]);
}

export async function syncRedis(options: BenchOptions): Promise<void> {
  printBars(await overRedis(options));
}

export async function syncPostgres(options: BenchOptions): Promise<void> {
  printBars(await overPostgres(options));
}

export async function syncNats(options: BenchOptions): Promise<void> {
  printBars(await overBroker(startNats, options));
}

export async function syncRabbit(options: BenchOptions): Promise<void> {
  printBars(await overBroker(startRabbit, options));
}

export async function syncKafka(options: BenchOptions): Promise<void> {
  printBars(await overBroker(startKafka, options));
}

async function overBroker(start: () => Promise<Broker>, options: BenchOptions): Promise<Bar[]> {
  const rounds = options.quick ? 1 : 3;
  const seconds = options.quick ? 2 : 3;
  const database = await startDatabase();
  let broker: Broker | undefined;
  let nodes: Nodes | undefined;
  try {
    broker = await start();
    if (!options.baselinesOnly) nodes = await startNodes({ ...broker.environment, DATABASE_URL: database.url });
    return [
      ...(await raceDelay({ layer: broker.layer, url: broker.url, logUrl: database.url, nodes, rounds, seconds })),
      ...(await raceBroker({ broker, node: nodes?.[0], rounds, seconds })),
    ];
  } finally {
    if (nodes) await stopNodes(nodes);
    await broker?.close();
    await database.close();
  }
}

async function overRedis(options: BenchOptions): Promise<Bar[]> {
  const rounds = options.quick ? 1 : 3;
  const database = await startDatabase();
  let redis: BenchRedis | undefined;
  let nodes: Nodes | undefined;
  try {
    redis = await startRedis();
    if (!options.baselinesOnly) {
      nodes = await startNodes({ SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url });
    }
    const seconds = options.quick ? 2 : 3;
    const cluster = { connections: 1000, windows: [1, 8], rounds, seconds: options.quick ? 0.7 : 1.2 };
    return [
      ...(await raceDelay({ layer: 'redis', url: redis.url, nodes, rounds, seconds })),
      ...(await raceScript({ redis, node: nodes?.[0], rounds, seconds })),
      ...(await raceCluster({ redis, nodes, ...cluster })),
    ];
  } finally {
    if (nodes) await stopNodes(nodes);
    await redis?.close();
    await database.close();
  }
}

async function overPostgres(options: BenchOptions): Promise<Bar[]> {
  const rounds = options.quick ? 1 : 3;
  const seconds = options.quick ? 2 : 4;
  const database = await startDatabase();
  let nodes: Nodes | undefined;
  try {
    if (!options.baselinesOnly) nodes = await startNodes({ SYNC: 'postgres', DATABASE_URL: database.url });
    return [
      ...(await raceDelay({ layer: 'postgres', url: database.url, nodes, rounds, seconds })),
      ...(await raceSend({ database, nodes, rounds, seconds })),
    ];
  } finally {
    if (nodes) await stopNodes(nodes);
    await database.close();
  }
}
