-- What users and addresses have spent of their limits, for all nodes. Unlogged: it is worth nothing a minute later, so
-- it costs no write-ahead log, is empty after a crash, and is missing from replicas and backups.
CREATE UNLOGGED TABLE realtime.limits (
  key text PRIMARY KEY,
  points bigint NOT NULL,
  -- Every time here is the database's: the clocks of nodes differ.
  ends_at timestamp with time zone NOT NULL
) WITH (
  -- Rows are updated in place, again and again, and are few: room beside each keeps the index out of it.
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000
);
