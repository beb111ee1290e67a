-- From the outbox to the log. Only the owner of this schema calls these.

-- The next batch that is visible now, in the order of ids: at most `batch_max` rows and about 8 MB, so that no batch
-- outgrows memory; one row at least.
--
-- `ranges` is for the time when a long transaction keeps dead rows from being vacuumed, which every read from the start
-- would walk through: pairs of first and last id, ascending, outside of which the caller knows of no live row. NULL
-- reads everything.
CREATE FUNCTION realtime.visible(
  batch_max integer, ranges bigint[], OUT places tid[], OUT ids bigint[], OUT keyed boolean
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
-- The statistics of a queue say nothing: an analyze that met it empty would make the planner sort the whole table. The
-- penalty that this puts on other plans must not look like a price worth compiling for.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  IF ranges IS NULL THEN
    SELECT array_agg(w.place ORDER BY w.id), array_agg(w.id ORDER BY w.id), bool_or(w.keyed) INTO places, ids, keyed
    FROM (
      SELECT v.ctid AS place, v.id, v.key IS NOT NULL AS keyed,
        sum(octet_length(v.data)) OVER (ORDER BY v.id) - octet_length(v.data) AS before
      FROM (SELECT o.ctid, o.id, o.data, o.key FROM realtime.outbox o ORDER BY o.id LIMIT batch_max) v
    ) w
    WHERE w.before < 8388608;
  ELSE
    SELECT array_agg(w.place ORDER BY w.id), array_agg(w.id ORDER BY w.id), bool_or(w.keyed) INTO places, ids, keyed
    FROM (
      SELECT v.ctid AS place, v.id, v.key IS NOT NULL AS keyed,
        sum(octet_length(v.data)) OVER (ORDER BY v.id) - octet_length(v.data) AS before
      FROM (
        SELECT o.ctid, o.id, o.data, o.key
        FROM generate_series(1, cardinality(ranges), 2) i
        CROSS JOIN LATERAL (
          SELECT r.ctid, r.id, r.data, r.key FROM realtime.outbox r
          WHERE r.id BETWEEN ranges[i] AND ranges[i + 1] ORDER BY r.id LIMIT batch_max
        ) o
        LIMIT batch_max
      ) v
    ) w
    WHERE w.before < 8388608;
  END IF;
END;
$$;
--> statement-breakpoint
-- Moves one batch from the outbox into the log, as one transaction, and answers what it moved, in the order of the
-- outbox. Rows of ephemeral channels (a rule says so) are answered too, with seq and offset 0, and stored nowhere; rows
-- whose key the channel's log already has are gone without a trace; rows whose channel is no channel are dropped.
--
-- `rules`: array of {pattern, recoverable, historySize, historySeconds}; the first whose pattern matches counts.
--
-- The last row has no channel and reports: seq = the highest id taken (0: there was nothing), offset = rows taken,
-- at = rows dropped, data = all ids taken (only if `ranges` were given or `report` is set), epoch = `oldest:next`:
-- transactions below the first had ended before the read, and whoever has an id lower than one that was taken is below
-- the second. Not a snapshot's upper bound: that is only past the newest transaction that has ended.
CREATE FUNCTION realtime.relay(
  batch_max integer, rules jsonb, ranges bigint[] DEFAULT NULL, report boolean DEFAULT false
)
RETURNS TABLE (
  seq bigint, channel text, epoch text, "offset" bigint, data text, at bigint,
  "user" text, connection text, "except" text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_nestloop = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  -- Before the read: transactions below it had ended, so the read that follows sees all that they left.
  oldest text := pg_snapshot_xmin(pg_current_snapshot())::text;
  places tid[];
  ids bigint[];
  keyed boolean;
  log_epoch text;
  before bigint;
  after bigint;
  now_ms bigint;
BEGIN
  SELECT v.places, v.ids, v.keyed INTO places, ids, keyed FROM realtime.visible(batch_max, ranges) v;
  IF places IS NULL THEN
    RETURN QUERY SELECT 0::bigint, NULL::text, oldest || ':' || oldest,
      0::bigint, '{}'::text, 0::bigint, NULL::text, NULL::text, NULL::text;
    RETURN;
  END IF;

  -- The fence. Rows that another relay took meanwhile are not there any more when this one deletes.
  SELECT l.epoch INTO log_epoch FROM realtime.log l FOR UPDATE;
  now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
  SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO before FROM realtime.publications_seq_seq;

  -- A key counts as long as its publication is history; what is only stored a while longer gives it free.
  IF keyed THEN
    UPDATE realtime.publications p SET key = NULL
    FROM realtime.outbox o JOIN realtime.channels c ON c.channel = o.channel
    WHERE o.ctid = ANY (places) AND o.key IS NOT NULL AND p.channel = o.channel AND p.key = o.key
      AND (p."offset" <= c."offset" - c.history_size OR p.at <= now_ms - c.history_seconds::bigint * 1000);
  END IF;

  RETURN QUERY
  WITH taken AS MATERIALIZED (
    DELETE FROM realtime.outbox o
    WHERE o.ctid = ANY (places) AND o.id <= ids[cardinality(ids)]
    -- A json column keeps the line breaks that its writer put between values; inside strings JSON has none.
    RETURNING o.id, o.channel, replace(replace(o.data, E'\n', ' '), E'\r', ' ') AS data, o.key
  ), rule AS MATERIALIZED (
    SELECT r.value ->> 'pattern' AS pattern, (r.value ->> 'recoverable')::boolean AS recoverable,
      (r.value ->> 'historySize')::integer AS size, (r.value ->> 'historySeconds')::integer AS seconds,
      r.ordinality AS place
    FROM jsonb_array_elements(rules) WITH ORDINALITY r
  ), named AS MATERIALIZED (
    -- Each distinct channel is checked and ruled once: OFFSET keeps the planner from checking every row.
    SELECT c.channel, r.recoverable, r.size, r.seconds
    FROM (SELECT DISTINCT t.channel FROM taken t OFFSET 0) c
    CROSS JOIN LATERAL (SELECT * FROM rule r WHERE c.channel ~ r.pattern ORDER BY r.place LIMIT 1) r
    WHERE c.channel ~ '^[A-Za-z0-9_.:@/-]{1,128}$'
  ), first_of_key AS (
    SELECT min(t.id) AS id FROM taken t WHERE t.key IS NOT NULL GROUP BY t.channel, t.key
  ), fresh AS MATERIALIZED (
    SELECT t.id, t.channel, t.data, t.key, n.recoverable, n.size, n.seconds,
      row_number() OVER (PARTITION BY t.channel ORDER BY t.id) AS place, count(*) OVER (PARTITION BY t.channel) AS total
    FROM taken t JOIN named n ON n.channel = t.channel
    WHERE NOT n.recoverable OR t.key IS NULL OR (
      t.id IN (SELECT f.id FROM first_of_key f)
      AND NOT EXISTS (SELECT FROM realtime.publications p WHERE p.channel = t.channel AND p.key = t.key)
    )
  ), heads AS MATERIALIZED (
    INSERT INTO realtime.channels AS h (channel, epoch, "offset", history_size, history_seconds, used_at)
    SELECT f.channel, log_epoch, f.total, f.size, f.seconds, now_ms
    FROM fresh f WHERE f.recoverable AND f.place = 1
    ON CONFLICT (channel) DO UPDATE SET
      "offset" = h."offset" + excluded."offset", history_size = excluded.history_size,
      history_seconds = excluded.history_seconds, used_at = excluded.used_at
    RETURNING h.channel, h.epoch, h."offset" AS head, h.history_size AS size
  ), numbered AS MATERIALIZED (
    SELECT CASE WHEN f.recoverable THEN nextval('realtime.publications_seq_seq') ELSE 0 END AS seq, f.*
    FROM (
      SELECT f.channel, coalesce(h.epoch, '') AS epoch, coalesce(h.head - f.total + f.place, 0) AS "offset",
        f.data, f.key, f.recoverable, h.head, f.total
      FROM fresh f LEFT JOIN heads h ON h.channel = f.channel
      ORDER BY f.id
    ) f
  ), appended AS (
    INSERT INTO realtime.publications (seq, channel, "offset", data, at, key)
    SELECT n.seq, n.channel, n."offset", n.data, now_ms, n.key FROM numbered n WHERE n.recoverable
  ), trimmed AS (
    -- What is past the size is deleted when the head passes a multiple of 256, at most 1,024 rows at a time, and not
    -- before it is a minute old: a node that lags behind still fills its holes from it.
    DELETE FROM realtime.publications p
    WHERE p.ctid = ANY (ARRAY(
      SELECT x.ctid
      FROM (
        SELECT h.channel, h.head - h.size AS upto FROM heads h JOIN fresh f ON f.channel = h.channel AND f.place = 1
        WHERE h.head > h.size AND h.head / 256 <> (h.head - f.total) / 256
      ) h CROSS JOIN LATERAL (
        SELECT q.ctid, q.at FROM realtime.publications q
        WHERE q.channel = h.channel AND q."offset" <= h.upto ORDER BY q."offset" LIMIT 1024
      ) x
      WHERE x.at < now_ms - 60000
    ))
  )
  SELECT n.seq, n.channel, n.epoch, n."offset", n.data, now_ms, NULL::text, NULL::text, NULL::text FROM numbered n
  UNION ALL
  SELECT ids[cardinality(ids)], NULL, oldest || ':' || pg_current_xact_id()::text,
    (SELECT count(*) FROM taken), CASE WHEN report OR ranges IS NOT NULL THEN ids::text ELSE '{}' END,
    (SELECT count(*) FROM taken t WHERE t.channel NOT IN (SELECT m.channel FROM named m)), NULL, NULL, NULL;

  SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO after FROM realtime.publications_seq_seq;
  IF after <> before THEN
    -- With the writer's name: its process has the rows already and need not read them.
    PERFORM pg_notify('realtime_log', after::text || ' ' || current_setting('application_name'));
  END IF;
END;
$$;
--> statement-breakpoint
-- The next batch without taking it, for a log outside of this database; the caller deletes the rows once they are
-- stored there. The last row reports as above: id = the highest id, key = `oldest:next`, data = nothing.
CREATE FUNCTION realtime.peek(batch_max integer, ranges bigint[] DEFAULT NULL)
RETURNS TABLE (id bigint, channel text, data text, key text, at bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  -- Before the read: transactions below it had ended, so the read that follows sees all that they left.
  oldest text := pg_snapshot_xmin(pg_current_snapshot())::text;
  places tid[];
  ids bigint[];
BEGIN
  SELECT v.places, v.ids INTO places, ids FROM realtime.visible(batch_max, ranges) v;
  IF places IS NOT NULL THEN
    RETURN QUERY
    SELECT o.id, o.channel, replace(replace(o.data, E'\n', ' '), E'\r', ' '), o.key,
      floor(extract(epoch FROM o.at) * 1000)::bigint
    FROM realtime.outbox o WHERE o.ctid = ANY (places) AND o.id <= ids[cardinality(ids)] ORDER BY o.id;
  END IF;
  RETURN QUERY SELECT coalesce(ids[cardinality(ids)], 0), NULL::text, NULL::text,
    oldest || ':' || CASE WHEN places IS NULL THEN oldest ELSE pg_current_xact_id()::text END, 0::bigint;
END;
$$;
--> statement-breakpoint
-- What waits, for the operator: rows, counted up to 10,000, and the age of the oldest in seconds.
CREATE FUNCTION realtime.outbox_stats(OUT pending bigint, OUT lag_seconds double precision)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
  SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(o.at)), 0)::double precision
  FROM (SELECT at FROM realtime.outbox ORDER BY id LIMIT 10000) o
$$;
--> statement-breakpoint
REVOKE ALL ON FUNCTION
  realtime.visible(integer, bigint[]), realtime.relay(integer, jsonb, bigint[], boolean),
  realtime.peek(integer, bigint[]), realtime.outbox_stats()
FROM PUBLIC;
