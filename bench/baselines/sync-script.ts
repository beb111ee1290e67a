// The script that appends a publication, called bare: one process, ioredis, explicit pipelines, no server around it.
// Arguments: redis url, prefix, seconds, channels, publications per pipeline, data. Prints how many it got through.
import { Redis } from 'ioredis';
import { appendScript } from '../../src/sync/redis/scripts.ts';

const [url, prefix, data, ...numbers] = process.argv.slice(2);
const [seconds = 0, channels = 0, batch = 0] = numbers.map(Number);
if (!url || !prefix || !data || !(seconds * channels * batch > 0)) {
  throw new Error('usage: sync-script.ts <redis url> <prefix> <data> <seconds> <channels> <per pipeline>');
}

const redis = new Redis(url);
await redis.script('LOAD', appendScript);
const history = /master_replid:(\w+)/.exec(await redis.info('replication'))?.[1] ?? '';
const sha = new Bun.CryptoHasher('sha1').update(appendScript).digest('hex');
const warmMs = 300;
const size = 1000;
const keptMs = 3_600_000;
const values = [data, '', size, keptMs, 'PUBLISH'];
let appended = 0;
let misplaced = 0;

async function publish(channel: string, until: number, counting: () => boolean): Promise<void> {
  const key = (kind: string): string => `${prefix}:${kind}:{${channel}}`;
  const keys = [key('m'), key('s'), key('m')];
  let last = 0;
  while (performance.now() < until) {
    const pipeline = redis.pipeline();
    for (let count = 0; count < batch; count++) pipeline.evalsha(sha, 3, ...keys, ...values, key('c'), '', history);
    const answers = (await pipeline.exec()) ?? [];
    for (const [error, answer] of answers) {
      if (error) throw error;
      const offset = Number((answer as [string, number])[1]);
      if (last > 0 && offset !== last + 1) misplaced++;
      last = offset;
    }
    if (counting()) appended += answers.length;
  }
}

const began = performance.now() + warmMs;
const end = began + seconds * 1000;
const counting = (): boolean => performance.now() > began;
const cpuBefore = process.cpuUsage();
await Promise.all(Array.from({ length: channels }, (_, index) => publish(`bare:${index}`, end, counting)));
const measuredMs = performance.now() - began;
const { user, system } = process.cpuUsage(cpuBefore);
const cpuShare = (user + system) / 1000 / (measuredMs + warmMs);
redis.disconnect();
console.log(JSON.stringify({ perSecond: (appended * 1000) / measuredMs, misplaced, cpuShare }));
