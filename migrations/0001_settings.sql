-- Storage settings: both queues turn over completely all day, which the defaults of autovacuum are not made for.

-- Dead rows of the outbox stand between the relay and the next live one. A fixed threshold, as a share of a table
-- that is empty at rest says nothing; no cost delay, as the table is small and in memory.
ALTER TABLE realtime.outbox SET (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 100000,
  autovacuum_analyze_scale_factor = 0,
  autovacuum_analyze_threshold = 1000000,
  autovacuum_vacuum_cost_delay = 0,
  -- Rows of up to a page stay in line: a TOAST round trip costs a writer more than the wider row.
  toast_tuple_target = 8160,
  toast.autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 2000,
  toast.autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint
-- Compressing what lives for a millisecond only slows the writer.
ALTER TABLE realtime.outbox ALTER COLUMN data SET STORAGE EXTERNAL;
--> statement-breakpoint
-- Somebody's publication FOR ALL TABLES refuses deletes of a table that has no identity: those of the relay, and of a
-- writer whose nested statements are put in order. It costs nothing but where wal_level is logical.
ALTER TABLE realtime.outbox REPLICA IDENTITY FULL;
--> statement-breakpoint
ALTER TABLE realtime.unordered REPLICA IDENTITY FULL;
--> statement-breakpoint
ALTER TABLE realtime.row_changes REPLICA IDENTITY FULL;
--> statement-breakpoint
ALTER TABLE realtime.unordered SET (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint
ALTER TABLE realtime.row_changes SET (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint
ALTER TABLE realtime.publications SET (
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_analyze_scale_factor = 0.2,
  autovacuum_vacuum_cost_delay = 1,
  toast_tuple_target = 8160
);
--> statement-breakpoint
ALTER TABLE realtime.publications ALTER COLUMN data SET STORAGE EXTERNAL;
--> statement-breakpoint
-- Half of each page stays free for the next version of its rows: an update of a head then touches no index.
ALTER TABLE realtime.channels SET (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 1
);
--> statement-breakpoint
-- A short random name, unlike the one given.
CREATE FUNCTION realtime.new_epoch(previous text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  epoch text;
BEGIN
  LOOP
    epoch := substr(md5(gen_random_uuid()::text), 1, 6);
    EXIT WHEN epoch IS DISTINCT FROM previous;
  END LOOP;
  RETURN epoch;
END;
$$;
--> statement-breakpoint
INSERT INTO realtime.log (epoch) VALUES (realtime.new_epoch());
