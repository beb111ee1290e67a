// The library's counters over what the nodes share. In both, time is that of the server that counts, not of the nodes,
// whose clocks differ; and a window that claims to last longer than a window can comes from a clock that was set back:
// it begins anew, since it would lock its user out for as long.

import { RateLimiterPostgres, RateLimiterRedis } from 'rate-limiter-flexible';

export interface StoreOptions {
  /** Begins the keys of this limit, among others' in the same store. */
  readonly name: string;
  readonly limit: number;
  readonly windowMs: number;
}

/** The library's own script has neither this check nor a remedy for it. */
const countScript = `
local consumed = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
local window = ARGV[2] * 1000
if left < 0 or left > window then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', window)
  return {tonumber(ARGV[1]), window}
end
return {consumed, left}`;

/** `client` is one of ioredis, of a server or a cluster. */
export function redisStore(client: object, prefix: string, { name, limit, windowMs }: StoreOptions): RateLimiterRedis {
  return new RateLimiterRedis({
    storeClient: client,
    keyPrefix: `${prefix}:limit:${name}`,
    points: limit,
    duration: windowMs / 1_000,
    customIncrTtlLuaScript: countScript,
  });
}

/** What the store asks of the database: adds points under the key, for a window that begins now if none is open. */
export type CountInPostgres = (
  key: string,
  points: number,
  windowMs: number,
) => Promise<{ readonly points: number; readonly milliseconds: number }>;

export function postgresStore(count: CountInPostgres, { name, limit, windowMs }: StoreOptions): RateLimiterPostgres {
  return new PostgresStore(count, {
    storeClient: {},
    storeType: 'pool',
    tableCreated: true,
    clearExpiredByTimeout: false,
    keyPrefix: name,
    points: limit,
    duration: windowMs / 1_000,
  });
}

/** The library's own statement takes the time from the node. */
class PostgresStore extends RateLimiterPostgres {
  readonly #count: CountInPostgres;

  constructor(count: CountInPostgres, options: ConstructorParameters<typeof RateLimiterPostgres>[0]) {
    super(options);
    this.#count = count;
  }

  /** Called by the library, which reads the answer as a row of its own table. */
  async _upsert(
    key: string,
    points: number,
    windowMs: number,
  ): Promise<{ rows: { points: number; expire: number }[] }> {
    const counted = await this.#count(key, points, windowMs);
    return { rows: [{ points: counted.points, expire: Date.now() + counted.milliseconds }] };
  }
}
