-- The tables. Everything here works from PostgreSQL 13 on, for a role that owns the database; it is plain ASCII, for
-- databases of any encoding. The schema itself, and the table of these migrations, are made before (src/database).
CREATE TABLE realtime.log (
  -- One row: locking it is the fence behind which every publication is numbered, so that numbers rise in the order of
  -- commits and two relays cannot interleave.
  single boolean PRIMARY KEY DEFAULT true NOT NULL,
  -- The name of the log. A channel without a head of its own stands at offset 0 of this epoch.
  epoch text NOT NULL,
  -- Begins the names under which this log notifies. Whoever may connect may listen and notify, so one that can be guessed
  -- would show publications to roles that may read nothing, and take forged ones from them. Only the owner reads this.
  topic text DEFAULT 'realtime_' || replace(gen_random_uuid()::text, '-', '') NOT NULL,
  -- Names the outbox to a log elsewhere, which knows its rows by it; the same for as long as the rows are.
  source text DEFAULT substr(replace(gen_random_uuid()::text, '-', ''), 1, 12) NOT NULL,
  -- Rises whenever the log gets another epoch: of two, the greater is the later one. A log elsewhere follows it.
  generation bigint DEFAULT floor(extract(epoch FROM clock_timestamp()) * 1000) NOT NULL,
  -- The incarnation of the database that vouches for what was told, see realtime.vouch; NULL before the first.
  signature text,
  -- The sync layer of the relay that leads, or led at last.
  layer text,
  CONSTRAINT log_single CHECK (single)
);
--> statement-breakpoint
-- What writers' transactions left for the relay. No key, as its check could fail a writer, and no sequence: what
-- lastval() answers in a writer's session is the application's.
CREATE TABLE realtime.outbox (
  -- The transaction, by which the relay finds what has become visible since its last look.
  xid xid8 NOT NULL,
  -- The end of the write-ahead log just before the row was written: it rises from row to row, and from a transaction to
  -- the one that waited for its locks. So the changes of one row stay in order, also between sessions.
  lsn pg_lsn NOT NULL,
  -- A channel, or a channel template: then every channel of it that the watch has published to.
  channel text NOT NULL,
  -- JSON as text: nothing on the way needs to look into it, and a parsed form would be built only to be printed again.
  -- NULL tells the channel of a gap.
  data text,
  -- Idempotency key: a channel's log takes one publication per key.
  key text,
  -- The number of the watch that captured it.
  watch integer,
  -- Whom a change of nested statements is about, see realtime.reorder.
  subject text[],
  -- Why something could not be captured.
  fault text,
  -- Not now(): the age of what waits is told to the operator, and a long transaction began long ago.
  at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
--> statement-breakpoint
CREATE INDEX outbox_order ON realtime.outbox USING btree (lsn, xid);
--> statement-breakpoint
CREATE INDEX outbox_transaction ON realtime.outbox USING btree (xid, lsn);
--> statement-breakpoint
-- Changes of nested statements that the relay puts in order before it takes them, see realtime.reorder. No key: its check
-- could fail a writer.
CREATE TABLE realtime.unordered (
  xid xid8 NOT NULL,
  -- Where the statement ended, in the write-ahead log: inner ones come first.
  ended pg_lsn NOT NULL,
  -- NULL: the change of a row trigger.
  watch integer,
  mark pg_lsn,
  began pg_lsn NOT NULL
);
--> statement-breakpoint
CREATE INDEX unordered_transaction ON realtime.unordered USING btree (xid, ended);
--> statement-breakpoint
-- Where the outbox has the changes of one row that row triggers captured, where statements nest: a trigger that is called
-- for each row finds those of its row here, see realtime.reorder_row. No key, as above. Useless once the relay was there.
CREATE TABLE realtime.row_changes (
  xid xid8 NOT NULL,
  -- A hash of the table and the row's key; that of another row may be the same.
  key bigint NOT NULL,
  lsn pg_lsn NOT NULL
);
--> statement-breakpoint
CREATE INDEX row_changes_key ON realtime.row_changes USING btree (xid, key, lsn);
--> statement-breakpoint
-- What is watched. realtime.watch writes it as its caller, so the policy decides whose tables a role may watch; a trigger
-- writes the function that captures.
CREATE TABLE realtime.watched (
  -- Names the function, capture_<number>. Not the table's oid: a restored dump has other ones.
  number integer PRIMARY KEY NOT NULL,
  target regclass NOT NULL,
  channels text[] NOT NULL,
  -- The columns that may leave the database; NULL: all.
  columns text[],
  -- How bigint and numeric are sent: `json` or `text`.
  numbers text DEFAULT 'json' NOT NULL,
  -- What its function was written for.
  shape text,
  -- What of it cannot be captured, as the table is now.
  fault text,
  since timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT watched_target UNIQUE (target)
);
--> statement-breakpoint
-- What could not be captured, counted by the relay: a writer that counted would make others wait.
CREATE TABLE realtime.faults (
  watch integer NOT NULL,
  reason text NOT NULL,
  count bigint NOT NULL,
  last_at timestamp with time zone NOT NULL,
  CONSTRAINT faults_pk PRIMARY KEY (watch, reason)
);
--> statement-breakpoint
CREATE TABLE realtime.channels (
  channel text PRIMARY KEY NOT NULL,
  -- The log's epoch when the channel got its first publication; it stays, so that a new log epoch disturbs nobody.
  epoch text NOT NULL,
  -- The head, unless a publication of the channel has a higher offset. It is written when that is trimmed, so that the
  -- channel keeps counting, and not with each publication: while a snapshot is open anywhere in the database, no version
  -- of a row goes away, and whoever looks for the newest of 100,000 has to pass them all.
  "offset" bigint NOT NULL,
  -- The rule's size and age, for the trimming, which knows no rules.
  history_size integer NOT NULL,
  history_seconds integer NOT NULL,
  -- Unix milliseconds: of its beginning, or of the last publication that was trimmed.
  used_at bigint NOT NULL,
  -- The watches that published to it by a template: whom a TRUNCATE of their tables concerns.
  watches integer[]
);
--> statement-breakpoint
-- For how long rules keep, each once.
CREATE INDEX channels_history ON realtime.channels USING btree (history_seconds);
--> statement-breakpoint
-- Channels that were forgotten, by the hash of their names: one that comes back counts from 1, and must not be taken for
-- its former self. Of another epoch of the log they mean nothing any more.
CREATE TABLE realtime.forgotten (
  hash integer PRIMARY KEY NOT NULL,
  -- The log's, when it was forgotten.
  epoch text NOT NULL,
  times integer NOT NULL
);
--> statement-breakpoint
-- How far the log was looked through for what is past its end, by the age in seconds at which that is done.
CREATE TABLE realtime.trimming (
  age integer PRIMARY KEY NOT NULL,
  seq bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE realtime.publications (
  -- The order of the whole log: taken behind the fence alone, so a reader of `seq > last` never skips a late commit.
  seq bigserial PRIMARY KEY NOT NULL,
  channel text NOT NULL,
  "offset" bigint NOT NULL,
  -- Empty, which is no JSON: a gap. Something that belongs here could not be carried, and subscribers are told so.
  data text NOT NULL,
  -- Unix milliseconds.
  at bigint NOT NULL,
  -- These three are set when a client published, not on table changes.
  from_user text,
  from_connection text,
  except_connection text,
  key text,
  -- The transaction that wrote the change, for a reader that knows what it saw of the table itself.
  xid xid8,
  CONSTRAINT publications_position UNIQUE (channel, "offset")
);
--> statement-breakpoint
CREATE UNIQUE INDEX publications_key ON realtime.publications USING btree (channel, key) WHERE key IS NOT NULL;
--> statement-breakpoint
-- The channels that templates have made, where the log is not in this database: whom a TRUNCATE concerns.
CREATE TABLE realtime.published (
  watch integer NOT NULL,
  channel text NOT NULL,
  last_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT published_pk PRIMARY KEY (watch, channel)
);
--> statement-breakpoint
-- What could not be carried, see realtime.park.
CREATE TABLE realtime.parked (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY NOT NULL,
  channel text NOT NULL,
  -- The number of the watch that captured it.
  watch integer,
  -- What was to be published, as the bytes of the database's own encoding: a text that cannot be sent could not be read
  -- here either. Of a large one the beginning; NULL when even that cannot be read.
  data bytea,
  bytes bigint,
  error text NOT NULL,
  written_at timestamp with time zone NOT NULL,
  parked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
--> statement-breakpoint
-- Numbers those who carry the outbox to a log elsewhere, in the order in which they began: what one of them still does
-- after another took over is known by it. Only a relay's own session takes from it.
CREATE SEQUENCE realtime.terms;
--> statement-breakpoint
-- A rule as the relay needs it, see realtime.relay.
CREATE TYPE realtime.rule AS (
  pattern text,
  recoverable boolean,
  -- Of the channel's history, in publications and seconds.
  size integer,
  seconds integer
);
--> statement-breakpoint
-- What entries became, see realtime.append_entries: one element for each, in their order.
CREATE TYPE realtime.numbered AS (
  -- 0 where the channel is ephemeral, NULL where nothing was appended. For an entry of a client whose key was used: that of
  -- the first.
  seqs bigint[],
  -- -1 where there is no such channel.
  offsets bigint[],
  -- NULL for an entry whose channel has the epoch of the log, or as a whole.
  epochs text[],
  -- True for an entry whose key was used; NULL as a whole when there is none.
  repeats boolean[],
  -- Of the log.
  epoch text,
  at bigint
);
--> statement-breakpoint
-- A publication of a client in the log.
CREATE TYPE realtime.appended AS (
  seq bigint,
  channel text,
  epoch text,
  "offset" bigint,
  data text,
  at bigint,
  "user" text,
  connection text,
  "except" text,
  fresh boolean,
  xid xid8
);
--> statement-breakpoint
-- How a channel stands.
CREATE TYPE realtime.standing AS (
  epoch text,
  history_size integer,
  history_seconds integer,
  watches integer[]
);
