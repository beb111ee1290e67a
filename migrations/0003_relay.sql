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
-- Appends one publication; the caller holds the fence. `fresh` is false when the channel's log has the key: nothing was
-- changed then, and the rest is the first one's. `carried` is what a notification says of it, two lines: the position
-- and the sender, then the data; NULL when that is too long for one, or the data is not on one line.
CREATE FUNCTION realtime.append_row(
  log_epoch text, size integer, seconds integer, key text, INOUT channel text, INOUT data text, INOUT at bigint,
  INOUT "user" text, INOUT connection text, INOUT "except" text,
  OUT seq bigint, OUT epoch text, OUT "offset" bigint, OUT fresh boolean, OUT carried text
)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
  known record;
BEGIN
  IF append_row.key IS NOT NULL THEN
    -- A key counts as long as its publication is history; what is only stored a while longer gives it free.
    UPDATE realtime.publications p SET key = NULL FROM realtime.channels c
    WHERE c.channel = append_row.channel AND p.channel = append_row.channel AND p.key = append_row.key
      AND (p."offset" <= c."offset" - size OR p.at <= append_row.at - seconds::bigint * 1000);
    SELECT p.*, c.epoch INTO known
    FROM realtime.publications p JOIN realtime.channels c ON c.channel = p.channel
    WHERE p.channel = append_row.channel AND p.key = append_row.key;
    IF FOUND THEN
      seq := known.seq;
      epoch := known.epoch;
      "offset" := known."offset";
      data := known.data;
      at := known.at;
      "user" := known.from_user;
      connection := known.from_connection;
      "except" := known.except_connection;
      fresh := false;
      RETURN;
    END IF;
  END IF;

  WITH head AS (
    INSERT INTO realtime.channels AS h (channel, epoch, "offset", history_size, history_seconds, used_at)
    VALUES (append_row.channel, log_epoch, 1, size, seconds, append_row.at)
    ON CONFLICT (channel) DO UPDATE SET
      "offset" = h."offset" + 1, history_size = excluded.history_size,
      history_seconds = excluded.history_seconds, used_at = excluded.used_at
    RETURNING h.epoch, h."offset"
  ), appended AS (
    INSERT INTO realtime.publications AS p
      (channel, "offset", data, at, from_user, from_connection, except_connection, key)
    SELECT append_row.channel, h."offset", append_row.data, append_row.at, append_row."user", append_row.connection,
      append_row."except", append_row.key FROM head h
    RETURNING p.seq, p."offset"
  )
  SELECT a.seq, h.epoch, h."offset" INTO append_row.seq, append_row.epoch, append_row."offset"
  FROM appended a, head h;
  fresh := true;

  -- What is past the size is deleted when the head passes a multiple of 256, at most 1,024 rows at a time, and not
  -- before it is a minute old: a node that lags behind still fills its holes from it.
  IF append_row."offset" % 256 = 0 AND append_row."offset" > size THEN
    DELETE FROM realtime.publications p
    WHERE p.ctid = ANY (ARRAY(
      SELECT x.ctid
      FROM (
        SELECT q.ctid, q.at FROM realtime.publications q
        WHERE q.channel = append_row.channel AND q."offset" <= append_row."offset" - size ORDER BY q."offset" LIMIT 1024
      ) x
      WHERE x.at < append_row.at - 60000
    ));
  END IF;

  IF octet_length(append_row.data) < 8000 AND strpos(append_row.data, E'\n') = 0 THEN
    carried := json_build_array(append_row.channel, append_row.epoch, append_row."offset", append_row.at,
      append_row."user", append_row.connection, append_row."except")::text || E'\n' || append_row.data;
  END IF;
END;
$$;
--> statement-breakpoint
-- Tells the other nodes at the commit that the log reaches to `seq`: `<seq> <writer>`, and in the lines after that the
-- last publications themselves, if there are any that can be `carried` in the 8,000 bytes that a notification must not
-- reach. Without them, the others read the log. The writer's own process has the rows already.
CREATE FUNCTION realtime.tell(topic text, seq bigint, carried text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  told text := seq::text || ' ' || current_setting('application_name');
BEGIN
  IF octet_length(told) + octet_length(carried) < 8000 THEN
    told := told || carried;
  END IF;
  PERFORM pg_notify(topic || '_log', told);
END;
$$;
--> statement-breakpoint
-- Moves one batch from the outbox into the log, as one transaction, and answers what it moved, in the order of the
-- outbox. Rows of ephemeral channels (a rule says so) are answered too, with seq and offset 0, and stored nowhere; rows
-- whose key the channel's log already has are gone without a trace; rows whose channel is no channel are dropped. Up to
-- eight go one by one and are carried by the notification, more in one statement.
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
SET enable_bitmapscan = off
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
  few boolean := false;
  log_epoch text;
  topic text;
  before bigint;
  after bigint := 0;
  now_ms bigint;
  found record;
  ruled text;
  rule jsonb;
  made record;
  taken bigint := 0;
  dropped bigint := 0;
  carried text := '';
BEGIN
  -- Most batches are few rows, and a short look finds those. What it finds more of, or large, is read in full.
  IF ranges IS NOT NULL THEN
    SELECT array_agg(v.ctid ORDER BY v.id), array_agg(v.id ORDER BY v.id), coalesce(sum(v.bytes), 0) < 8388608
    INTO places, ids, few
    FROM (
      SELECT o.ctid, o.id, o.bytes
      FROM generate_series(1, cardinality(ranges), 2) i
      CROSS JOIN LATERAL (
        SELECT r.ctid, r.id, octet_length(r.data) AS bytes FROM realtime.outbox r
        WHERE r.id BETWEEN ranges[i] AND ranges[i + 1] ORDER BY r.id LIMIT 9
      ) o
      LIMIT least(batch_max, 9)
    ) v;
    few := few AND coalesce(cardinality(ids), 0) <= 8;
  END IF;
  IF NOT few THEN
    SELECT v.places, v.ids, v.keyed INTO places, ids, keyed FROM realtime.visible(batch_max, ranges) v;
  END IF;
  IF places IS NULL THEN
    RETURN QUERY SELECT 0::bigint, NULL::text, oldest || ':' || oldest,
      0::bigint, '{}'::text, 0::bigint, NULL::text, NULL::text, NULL::text;
    RETURN;
  END IF;

  -- The fence. Rows that another relay took meanwhile are not there any more when this one deletes.
  SELECT l.epoch, l.topic INTO log_epoch, topic FROM realtime.log l FOR UPDATE;
  now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);

  IF few THEN
    FOR found IN
      WITH taken AS (
        DELETE FROM realtime.outbox o
        WHERE o.ctid = ANY (places) AND o.id <= ids[cardinality(ids)]
        -- A json column keeps the line breaks that its writer put between values; inside strings JSON has none.
        RETURNING o.id, o.channel, replace(replace(o.data, E'\n', ' '), E'\r', ' ') AS data, o.key
      )
      SELECT * FROM taken t ORDER BY t.id
    LOOP
      taken := taken + 1;
      -- Rows next to each other are mostly of one channel.
      IF found.channel IS DISTINCT FROM ruled THEN
        ruled := found.channel;
        rule := NULL;
        IF ruled ~ '^[A-Za-z0-9_.:@/-]{1,128}$' THEN
          SELECT r.value INTO rule FROM jsonb_array_elements(rules) WITH ORDINALITY r
          WHERE ruled ~ (r.value ->> 'pattern') ORDER BY r.ordinality LIMIT 1;
        END IF;
      END IF;
      IF rule IS NULL THEN
        dropped := dropped + 1;
      ELSIF NOT (rule ->> 'recoverable')::boolean THEN
        seq := 0;
        channel := found.channel;
        epoch := '';
        "offset" := 0;
        data := found.data;
        at := now_ms;
        RETURN NEXT;
      ELSE
        made := realtime.append_row(
          log_epoch, (rule ->> 'historySize')::integer, (rule ->> 'historySeconds')::integer, found.key, found.channel,
          found.data, now_ms, NULL, NULL, NULL
        );
        IF made.fresh THEN
          seq := made.seq;
          channel := made.channel;
          epoch := made.epoch;
          "offset" := made."offset";
          data := made.data;
          at := made.at;
          RETURN NEXT;
          after := seq;
          carried := carried || E'\n' || made.carried;
        END IF;
      END IF;
    END LOOP;
    IF after > 0 THEN
      PERFORM realtime.tell(topic, after, carried);
    END IF;
    seq := ids[cardinality(ids)];
    channel := NULL;
    epoch := oldest || ':' || pg_current_xact_id()::text;
    "offset" := taken;
    data := CASE WHEN report OR ranges IS NOT NULL THEN ids::text ELSE '{}' END;
    at := dropped;
    RETURN NEXT;
    RETURN;
  END IF;

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
    PERFORM realtime.tell(topic, after, NULL);
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
  realtime.visible(integer, bigint[]),
  realtime.append_row(text, integer, integer, text, text, text, bigint, text, text, text),
  realtime.tell(text, bigint, text), realtime.relay(integer, jsonb, bigint[], boolean),
  realtime.peek(integer, bigint[]), realtime.outbox_stats()
FROM PUBLIC;
