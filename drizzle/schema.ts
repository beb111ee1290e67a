// The tables as types: what drizzle-kit compares to write the next migration. A test holds them to the migrated database.
// Functions, triggers, policies and storage settings are in the migrations alone.

import { sql } from 'drizzle-orm';
import {
  bigint,
  bigserial,
  boolean,
  check,
  customType,
  index,
  integer,
  pgSchema,
  primaryKey,
  text,
  timestamp,
  unique,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core';

export const realtime = pgSchema('realtime');

/** One row that names the log, and the lock behind which publications are numbered. */
export const log = realtime.table(
  'log',
  {
    single: boolean('single').primaryKey().default(true),
    epoch: text('epoch').notNull(),
    topic: text('topic')
      .notNull()
      .default(sql`'realtime_' || replace(gen_random_uuid()::text, '-', '')`),
    source: text('source')
      .notNull()
      .default(sql`substr(replace(gen_random_uuid()::text, '-', ''), 1, 12)`),
    generation: bigint('generation', { mode: 'number' })
      .notNull()
      .default(sql`floor(extract(epoch FROM clock_timestamp()) * 1000)`),
    signature: text('signature'),
    layer: text('layer'),
  },
  (table) => [check('log_single', sql`${table.single}`)],
);

const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' });
const pgLsn = customType<{ data: string }>({ dataType: () => 'pg_lsn' });
const bytea = customType<{ data: Uint8Array }>({ dataType: () => 'bytea' });
const regclass = customType<{ data: string }>({ dataType: () => 'regclass' });

/** What writers' transactions left to be published. */
export const outbox = realtime.table(
  'outbox',
  {
    xid: xid8('xid').notNull(),
    lsn: pgLsn('lsn').notNull(),
    channel: text('channel').notNull(),
    data: text('data'),
    key: text('key'),
    watch: integer('watch'),
    subject: text('subject').array(),
    fault: text('fault'),
    at: timestamp('at', { withTimezone: true })
      .notNull()
      .default(sql`clock_timestamp()`),
  },
  (table) => [index('outbox_order').on(table.lsn, table.xid), index('outbox_transaction').on(table.xid, table.lsn)],
);

/** What is watched. */
export const watched = realtime.table(
  'watched',
  {
    number: integer('number').primaryKey(),
    target: regclass('target').notNull(),
    channels: text('channels').array().notNull(),
    columns: text('columns').array(),
    numbers: text('numbers').notNull().default('json'),
    shape: text('shape'),
    fault: text('fault'),
    since: timestamp('since', { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [unique('watched_target').on(table.target)],
);

/** What could not be captured. */
export const faults = realtime.table(
  'faults',
  {
    watch: integer('watch').notNull(),
    reason: text('reason').notNull(),
    count: bigint('count', { mode: 'number' }).notNull(),
    lastAt: timestamp('last_at', { withTimezone: true }).notNull(),
  },
  (table) => [primaryKey({ name: 'faults_pk', columns: [table.watch, table.reason] })],
);

/** Each channel's head. */
export const channels = realtime.table(
  'channels',
  {
    channel: text('channel').primaryKey(),
    epoch: text('epoch').notNull(),
    offset: bigint('offset', { mode: 'number' }).notNull(),
    historySize: integer('history_size').notNull(),
    historySeconds: integer('history_seconds').notNull(),
    usedAt: bigint('used_at', { mode: 'number' }).notNull(),
    watches: integer('watches').array(),
  },
  (table) => [index('channels_history').on(table.historySeconds)],
);

/** Changes of nested statements that the relay puts in order. */
export const unordered = realtime.table(
  'unordered',
  {
    xid: xid8('xid').notNull(),
    ended: pgLsn('ended').notNull(),
    watch: integer('watch'),
    mark: pgLsn('mark'),
    began: pgLsn('began').notNull(),
  },
  (table) => [index('unordered_transaction').on(table.xid, table.ended)],
);

/** Where the outbox has the changes of a row that row triggers captured, by a hash of its key. */
export const rowChanges = realtime.table(
  'row_changes',
  {
    xid: xid8('xid').notNull(),
    key: bigint('key', { mode: 'bigint' }).notNull(),
    lsn: pgLsn('lsn').notNull(),
  },
  (table) => [index('row_changes_key').on(table.xid, table.key, table.lsn)],
);

/** Channels that were forgotten in this epoch of the log, by the hash of their names. */
export const forgotten = realtime.table('forgotten', {
  hash: integer('hash').primaryKey(),
  epoch: text('epoch').notNull(),
  times: integer('times').notNull(),
});

/** How far the log was looked through at each age. */
export const trimming = realtime.table('trimming', {
  age: integer('age').primaryKey(),
  seq: bigint('seq', { mode: 'number' }).notNull(),
});

/** The log of all recoverable channels. */
export const publications = realtime.table(
  'publications',
  {
    seq: bigserial('seq', { mode: 'number' }).primaryKey(),
    channel: text('channel').notNull(),
    offset: bigint('offset', { mode: 'number' }).notNull(),
    data: text('data').notNull(),
    at: bigint('at', { mode: 'number' }).notNull(),
    fromUser: text('from_user'),
    fromConnection: text('from_connection'),
    exceptConnection: text('except_connection'),
    key: text('key'),
    xid: xid8('xid'),
  },
  (table) => [
    unique('publications_position').on(table.channel, table.offset),
    uniqueIndex('publications_key')
      .on(table.channel, table.key)
      .where(sql`${table.key} IS NOT NULL`),
  ],
);

/** Channels that templates made, where the log is not in this database. */
export const published = realtime.table(
  'published',
  {
    watch: integer('watch').notNull(),
    channel: text('channel').notNull(),
    lastAt: timestamp('last_at', { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [primaryKey({ name: 'published_pk', columns: [table.watch, table.channel] })],
);

/** What could not be carried. */
export const parked = realtime.table('parked', {
  number: bigint('number', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  channel: text('channel').notNull(),
  watch: integer('watch'),
  data: bytea('data'),
  bytes: bigint('bytes', { mode: 'number' }),
  error: text('error').notNull(),
  writtenAt: timestamp('written_at', { withTimezone: true }).notNull(),
  parkedAt: timestamp('parked_at', { withTimezone: true })
    .notNull()
    .default(sql`clock_timestamp()`),
});

/** How far each partition of a source was taken. */
export const sources = realtime.table(
  'sources',
  {
    source: text('source').notNull(),
    partition: text('partition').notNull(),
    mark: text('mark'),
    messages: bigint('messages', { mode: 'number' }).notNull().default(0),
    takenAt: timestamp('taken_at', { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [primaryKey({ name: 'sources_pk', columns: [table.source, table.partition] })],
);

/** What was spent of limits that hold over all nodes. Unlogged, which the schema cannot express. */
export const limits = realtime.table('limits', {
  key: text('key').primaryKey(),
  points: bigint('points', { mode: 'number' }).notNull(),
  endsAt: timestamp('ends_at', { withTimezone: true }).notNull(),
});

/** Tickets that were not used yet. Unlogged, which the schema cannot express. */
export const tickets = realtime.table('tickets', {
  digest: text('digest').primaryKey(),
  claims: text('claims').notNull(),
  endsAt: timestamp('ends_at', { withTimezone: true }).notNull(),
});

/** Where the presence of each channel stands. Unlogged, as all of presence, which the schema cannot express. */
export const presenceChannels = realtime.table(
  'presence_channels',
  {
    channel: text('channel').primaryKey(),
    epoch: text('epoch').notNull(),
    version: bigint('version', { mode: 'number' }).notNull(),
    members: integer('members').notNull().default(0),
    emptySince: timestamp('empty_since', { withTimezone: true }),
  },
  (table) => [
    index('presence_channels_empty')
      .on(table.emptySince)
      .where(sql`${table.emptySince} IS NOT NULL`),
  ],
);

/** Connections that are members of channels. */
export const presenceMembers = realtime.table(
  'presence_members',
  {
    channel: text('channel').notNull(),
    connection: text('connection').notNull(),
    place: bigint('place', { mode: 'number' }).generatedAlwaysAsIdentity(),
    node: text('node').notNull(),
    user: text('user'),
    parts: boolean('parts').notNull().default(false),
    since: bigint('since', { mode: 'number' }).notNull(),
    member: text('member').notNull(),
  },
  (table) => [
    primaryKey({ name: 'presence_members_pkey', columns: [table.channel, table.connection] }),
    index('presence_members_user')
      .on(table.channel, table.user, table.place)
      .where(sql`"user" IS NOT NULL`),
    index('presence_members_node').on(table.node, table.channel),
  ],
);

/** Nodes that have members, and until when they live without another sign of life. */
export const presenceNodes = realtime.table('presence_nodes', {
  node: text('node').primaryKey(),
  diesAt: timestamp('dies_at', { withTimezone: true }).notNull(),
});

/** Nodes that keep in `hookStates` what they have, and their last sign of life. */
export const hookNodes = realtime.table('hook_nodes', {
  node: text('node').primaryKey(),
  seenAt: timestamp('seen_at', { withTimezone: true }).notNull(),
});

/** What each node has of channels with subscribers, members and users. */
export const hookStates = realtime.table(
  'hook_states',
  {
    kind: text('kind').notNull(),
    channel: text('channel').notNull(),
    who: text('who').notNull(),
    node: text('node').notNull(),
  },
  (table) => [
    primaryKey({ name: 'hook_states_pkey', columns: [table.kind, table.channel, table.who, table.node] }),
    index('hook_states_node').on(table.node),
  ],
);

/** Events that the receiver of the hooks has not taken yet. */
export const hookEvents = realtime.table('hook_events', {
  seq: bigserial('seq', { mode: 'number' }).primaryKey(),
  id: uuid('id').notNull().defaultRandom(),
  event: text('event').notNull(),
  channel: text('channel').notNull(),
  who: text('who').notNull(),
  at: timestamp('at', { withTimezone: true })
    .notNull()
    .default(sql`clock_timestamp()`),
});
