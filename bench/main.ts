// The bench's entry: `bun run bench <name> [--quick] [--baselines]`, `fanout|sse --compress`, `<name> --beside=FOLDER`.
// Exit 0 when every run was counted whole, 1 when a run was not, 2 for a command line that makes no sense.
import { resolve } from 'node:path';
import { beside } from './beside.ts';
import { connect } from './connect.ts';
import { fanout } from './fanout.ts';
import { memory } from './memory.ts';
import { metrics } from './metrics.ts';
import { presence } from './presence.ts';
import { redisCompress } from './redis-compress.ts';
import { rows } from './rows.ts';
import { rules } from './rules.ts';
import { BenchError } from './server-process.ts';
import { sse } from './sse.ts';
import { sseCompress } from './sse-compress.ts';
import { sync, syncKafka, syncNats, syncPostgres, syncRabbit, syncRedis } from './sync.ts';
import type { BenchOptions } from './options.ts';
import { storm, stormKafka, stormNats, stormRabbit } from './storm.ts';
import { machineFacts } from './table.ts';
import { writers } from './writers.ts';
import { wsCompress } from './ws-compress.ts';

const benches: Readonly<Record<string, (options: BenchOptions) => Promise<void>>> = {
  fanout,
  sse,
  memory,
  connect,
  rules,
  metrics,
  rows,
  writers,
  presence,
  sync,
  'sync-redis': syncRedis,
  'redis-compress': redisCompress,
  'sync-postgres': syncPostgres,
  'sync-nats': syncNats,
  'sync-rabbitmq': syncRabbit,
  'sync-kafka': syncKafka,
  storm,
  'storm-nats': stormNats,
  'storm-rabbitmq': stormRabbit,
  'storm-kafka': stormKafka,
};

/** With `--compress`. */
const compressed: typeof benches = { fanout: wsCompress, sse: sseCompress };

const besideFlag = '--beside=';

async function main(args: readonly string[]): Promise<number> {
  const flags = args.filter((arg) => arg.startsWith('--') && !arg.startsWith(besideFlag));
  const other = args.find((arg) => arg.startsWith(besideFlag))?.slice(besideFlag.length);
  const names = args.filter((arg) => !arg.startsWith('--'));
  const unknown = [
    ...flags.filter((flag) => !['--quick', '--baselines', '--compress'].includes(flag)),
    ...names.filter((name) => !Object.hasOwn(other === undefined ? benches : beside, name)),
  ];
  if (names.length === 0 || unknown.length > 0) {
    console.error(
      `usage: bun run bench ${Object.keys(benches).join('|')} [--quick] [--baselines]; fanout|sse --compress; ` +
        `${Object.keys(beside).join('|')} --beside=FOLDER`,
    );
    if (unknown.length > 0) console.error(`not known: ${unknown.join(', ')}`);
    return 2;
  }
  const baselinesOnly = flags.includes('--baselines');
  const options: BenchOptions = {
    quick: flags.includes('--quick'),
    baselinesOnly,
    takes: (contender) => !baselinesOnly || contender.server.name !== 'sobranie',
  };
  console.log(machineFacts());
  for (const name of names) {
    const begun = performance.now();
    if (other !== undefined) await beside[name]?.(resolve(other), options);
    else await ((flags.includes('--compress') ? compressed[name] : undefined) ?? benches[name])?.(options);
    console.log(`\n${name}: ${Math.round((performance.now() - begun) / 1000)} s`);
  }
  return 0;
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  console.error(error instanceof BenchError ? `\nbench failed: ${error.message}` : error);
  process.exit(1);
}
