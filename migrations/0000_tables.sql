-- The tables of the log. Everything here works from PostgreSQL 13 on, for a role that owns the database.
CREATE SCHEMA realtime;
--> statement-breakpoint
CREATE TABLE realtime.log (
  -- One row: locking it is the fence behind which every publication is numbered, so that numbers rise in the order of
  -- commits and two relays cannot interleave.
  single boolean PRIMARY KEY DEFAULT true NOT NULL,
  -- The name of the log. A channel without a head of its own stands at offset 0 of this epoch.
  epoch text NOT NULL,
  -- Begins the names under which this log notifies. Whoever may connect may listen and notify, so one that can be guessed
  -- would show publications to roles that may read nothing, and take forged ones from them. Only the owner reads this.
  topic text DEFAULT 'realtime_' || replace(gen_random_uuid()::text, '-', '') NOT NULL,
  CONSTRAINT log_single CHECK (single)
);
--> statement-breakpoint
CREATE TABLE realtime.outbox (
  -- CACHE 1: ids must rise in the order in which the changes of one row took its lock, also between sessions.
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (CACHE 1),
  channel text NOT NULL,
  -- JSON as text: nothing on the way needs to look into it, and a parsed form would be built only to be printed again.
  data text NOT NULL,
  -- Idempotency key: a channel's log takes one publication per key.
  key text,
  -- Not now(): the age of what waits is told to the operator, and a long transaction began long ago.
  at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
--> statement-breakpoint
CREATE TABLE realtime.channels (
  channel text PRIMARY KEY,
  -- The log's epoch when the channel got its first publication; it stays, so that a new log epoch disturbs nobody.
  epoch text NOT NULL,
  -- The head. Kept apart from the publications, so that a channel whose history is all trimmed keeps counting.
  "offset" bigint NOT NULL,
  -- The rule's size and age, for the trimming, which knows no rules.
  history_size integer NOT NULL,
  history_seconds integer NOT NULL,
  -- Unix milliseconds. No index on it: every update of a head would then have to touch the index too.
  used_at bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE realtime.publications (
  -- The order of the whole log: taken behind the fence alone, so a reader of `seq > last` never skips a late commit.
  seq bigserial PRIMARY KEY,
  channel text NOT NULL,
  "offset" bigint NOT NULL,
  data text NOT NULL,
  -- Unix milliseconds.
  at bigint NOT NULL,
  -- These three are set when a client published, not on table changes.
  from_user text,
  from_connection text,
  except_connection text,
  key text,
  CONSTRAINT publications_position UNIQUE (channel, "offset")
);
--> statement-breakpoint
CREATE UNIQUE INDEX publications_key ON realtime.publications USING btree (channel, key) WHERE key IS NOT NULL;
