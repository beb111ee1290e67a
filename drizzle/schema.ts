// The tables as types: what drizzle-kit compares to write the next migration, and what an application may import for
// typed queries on the demo tables. Functions, triggers and storage settings are in the migrations alone.

import { sql } from 'drizzle-orm';
import {
  bigint,
  bigserial,
  boolean,
  check,
  index,
  integer,
  pgSchema,
  pgTable,
  primaryKey,
  text,
  timestamp,
  unique,
  uniqueIndex,
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
  },
  (table) => [check('log_single', sql`${table.single}`)],
);

/** What writers' transactions left to be published. */
export const outbox = realtime.table('outbox', {
  id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  channel: text('channel').notNull(),
  data: text('data').notNull(),
  key: text('key'),
  at: timestamp('at', { withTimezone: true })
    .notNull()
    .default(sql`clock_timestamp()`),
});

/** Each channel's head. */
export const channels = realtime.table('channels', {
  channel: text('channel').primaryKey(),
  epoch: text('epoch').notNull(),
  offset: bigint('offset', { mode: 'number' }).notNull(),
  historySize: integer('history_size').notNull(),
  historySeconds: integer('history_seconds').notNull(),
  usedAt: bigint('used_at', { mode: 'number' }).notNull(),
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
  },
  (table) => [
    unique('publications_position').on(table.channel, table.offset),
    uniqueIndex('publications_key')
      .on(table.channel, table.key)
      .where(sql`${table.key} IS NOT NULL`),
  ],
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

/** Demo: watched as `posts` and `posts:{id}`. */
export const posts = pgTable('posts', {
  id: bigint('id', { mode: 'number' }).primaryKey().generatedByDefaultAsIdentity(),
  title: text('title').notNull(),
  body: text('body').notNull().default(''),
  authorId: text('author_id'),
  createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
  updatedAt: timestamp('updated_at', { withTimezone: true }).notNull().defaultNow(),
});

/** Demo: watched as `user:{user_id}`, a channel that its owner alone may read. */
export const notifications = pgTable(
  'notifications',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedByDefaultAsIdentity(),
    userId: text('user_id').notNull(),
    title: text('title').notNull(),
    body: text('body').notNull().default(''),
    readAt: timestamp('read_at', { withTimezone: true }),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [index('notifications_user').on(table.userId, table.createdAt)],
);

/** Demo: watched as `chat:{room}`. */
export const messages = pgTable(
  'messages',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedByDefaultAsIdentity(),
    room: text('room').notNull(),
    authorId: text('author_id'),
    body: text('body').notNull(),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [index('messages_room').on(table.room, table.createdAt)],
);
