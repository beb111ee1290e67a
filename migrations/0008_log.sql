-- The log: what is appended to it, and what is forgotten. Only the owner of this schema calls these.

-- Tells the other nodes at the commit that the log reaches to `seq`: `<seq> <writer>`, and in the lines after that the
-- last publications themselves, if there are any that can be `carried` in the 8,000 bytes that a notification must not
-- reach. Without them, the others read the log. The writer's own process has the rows already.
CREATE FUNCTION realtime.tell(topic text, seq bigint, carried text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
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
-- Appends publications behind the fence, the one way into the log: numbers them, ignores those whose key their channel's
-- log has, trims, and tells the other nodes. Up to eight are carried by the notification.
--
-- Answers one row per entry, in their order. `fresh` is false for one whose key was used: it changed nothing, and the row
-- is the position of the first. An ephemeral one has seq and offset 0. Empty data is a gap.
CREATE FUNCTION realtime.append_entries(entries realtime.entry[])
RETURNS TABLE (
  seq bigint, channel text, epoch text, "offset" bigint, data text, at bigint,
  "user" text, connection text, "except" text, fresh boolean, xid xid8
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  log record;
  now_ms bigint;
  made record;
  last_seq bigint := 0;
  appended integer := 0;
  carried text := '';
BEGIN
  SELECT l.epoch, l.topic INTO log FROM realtime.log l FOR UPDATE;
  now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);

  -- A key counts as long as its publication is history; what is only stored a while longer gives it free.
  IF EXISTS (SELECT FROM unnest(entries) e WHERE e.key IS NOT NULL AND e.size IS NOT NULL) THEN
    UPDATE realtime.publications p SET key = NULL
    FROM unnest(entries) e JOIN realtime.channels c ON c.channel = e.channel
    WHERE p.channel = e.channel AND p.key = e.key
      AND (p."offset" <= c."offset" - e.size OR p.at <= now_ms - e.seconds::bigint * 1000);
  END IF;

  FOR made IN
    WITH given AS MATERIALIZED (
      SELECT e.*, e.place AS id,
        CASE WHEN e.key IS NULL THEN 0 ELSE row_number() OVER (PARTITION BY e.channel, e.key ORDER BY e.place) END AS turn
      FROM unnest(entries) e
    ), known AS MATERIALIZED (
      SELECT g.channel, g.key, p.seq, p."offset", p.data, p.at, p.from_user, p.from_connection, p.except_connection
      FROM given g JOIN realtime.publications p ON p.channel = g.channel AND p.key = g.key
      WHERE g.turn = 1 AND g.size IS NOT NULL
    ), fresh AS MATERIALIZED (
      SELECT g.*, row_number() OVER (PARTITION BY g.channel ORDER BY g.place) AS rank,
        count(*) OVER (PARTITION BY g.channel) AS total
      FROM given g
      WHERE g.size IS NOT NULL AND g.turn <= 1
        AND (g.key IS NULL OR NOT EXISTS (SELECT FROM known k WHERE k.channel = g.channel AND k.key = g.key))
    ), heads AS MATERIALIZED (
      INSERT INTO realtime.channels AS h (channel, epoch, "offset", history_size, history_seconds, used_at, watches)
      SELECT f.channel, log.epoch, f.total, f.size, f.seconds, now_ms, CASE WHEN f.watch IS NOT NULL THEN ARRAY[f.watch] END
      FROM fresh f WHERE f.rank = f.total
      ON CONFLICT (channel) DO UPDATE SET
        "offset" = h."offset" + excluded."offset", history_size = excluded.history_size,
        history_seconds = excluded.history_seconds, used_at = excluded.used_at,
        watches = CASE WHEN excluded.watches <@ h.watches OR excluded.watches IS NULL THEN h.watches
          ELSE coalesce(h.watches, '{}') || excluded.watches END
      RETURNING h.channel, h.epoch, h."offset" AS head, h.history_size AS size
    ), numbered AS MATERIALIZED (
      SELECT nextval('realtime.publications_seq_seq') AS seq, f.*
      FROM (
        SELECT f.*, h.epoch, h.head - f.total + f.rank AS "offset"
        FROM fresh f JOIN heads h ON h.channel = f.channel ORDER BY f.id
      ) f
    ), stored AS (
      INSERT INTO realtime.publications
        (seq, channel, "offset", data, at, from_user, from_connection, except_connection, key, xid)
      SELECT n.seq, n.channel, n."offset", n.data, now_ms, n."user", n.connection, n."except", n.key, n.xid FROM numbered n
    ), trimmed AS (
      -- What is past the size is deleted when the head passes a multiple of 256, at most 1,024 rows at a time, and not
      -- before it is a minute old: a node that lags behind still fills its holes from it.
      DELETE FROM realtime.publications p
      WHERE p.ctid = ANY (ARRAY(
        SELECT x.ctid
        FROM (
          SELECT h.channel, h.head - h.size AS upto FROM heads h JOIN fresh f ON f.channel = h.channel AND f.rank = 1
          WHERE h.head > h.size AND h.head / 256 <> (h.head - f.total) / 256
        ) h CROSS JOIN LATERAL (
          SELECT q.ctid, q.at FROM realtime.publications q
          WHERE q.channel = h.channel AND q."offset" <= h.upto ORDER BY q."offset" LIMIT 1024
        ) x
        WHERE x.at < now_ms - 60000
      ))
    )
    SELECT coalesce(n.seq, f.seq, k.seq, 0) AS seq, g.channel,
      coalesce(n.epoch, f.epoch, (SELECT c.epoch FROM realtime.channels c WHERE g.size IS NOT NULL AND c.channel = g.channel),
        '') AS epoch,
      coalesce(n."offset", f."offset", k."offset", 0) AS "offset",
      CASE WHEN n.seq IS NOT NULL OR g.size IS NULL THEN g.data WHEN f.seq IS NOT NULL THEN f.data ELSE k.data END AS data,
      CASE WHEN k.seq IS NOT NULL THEN k.at ELSE now_ms END AS at,
      CASE WHEN n.seq IS NOT NULL OR g.size IS NULL THEN g."user" WHEN f.seq IS NOT NULL THEN f."user" ELSE k.from_user END
        AS "user",
      CASE WHEN n.seq IS NOT NULL OR g.size IS NULL THEN g.connection WHEN f.seq IS NOT NULL THEN f.connection
        ELSE k.from_connection END AS connection,
      CASE WHEN n.seq IS NOT NULL OR g.size IS NULL THEN g."except" WHEN f.seq IS NOT NULL THEN f."except"
        ELSE k.except_connection END AS "except",
      n.seq IS NOT NULL OR g.size IS NULL AS fresh, g.xid
    FROM given g
    LEFT JOIN numbered n ON n.id = g.id
    -- The first of the same key, in this call or before.
    LEFT JOIN numbered f ON n.seq IS NULL AND g.key IS NOT NULL AND f.channel = g.channel AND f.key = g.key
    LEFT JOIN known k ON g.key IS NOT NULL AND k.channel = g.channel AND k.key = g.key
    ORDER BY g.id
  LOOP
    seq := made.seq;
    channel := made.channel;
    epoch := made.epoch;
    "offset" := made."offset";
    data := made.data;
    at := made.at;
    "user" := made."user";
    connection := made.connection;
    "except" := made."except";
    fresh := made.fresh;
    xid := made.xid;
    RETURN NEXT;
    IF fresh AND seq > 0 THEN
      last_seq := seq;
      appended := appended + 1;
      IF appended > 8 OR data = '' OR octet_length(data) >= 8000 OR strpos(data, E'\n') > 0 THEN
        carried := NULL;
      ELSE
        carried := carried || E'\n' || json_build_array(channel, epoch, "offset", at, "user", connection, "except", xid)::text
          || E'\n' || data;
      END IF;
    END IF;
  END LOOP;
  IF last_seq > 0 THEN
    PERFORM realtime.tell(log.topic, last_seq, carried);
  END IF;
END;
$$;
--> statement-breakpoint
-- Appends publications of clients. `entries`: array of {channel, data (JSON as text), user, connection, except, key, size,
-- seconds}.
CREATE FUNCTION realtime.append(entries jsonb)
RETURNS TABLE (
  seq bigint, channel text, epoch text, "offset" bigint, data text, at bigint,
  "user" text, connection text, "except" text, fresh boolean
)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT a.seq, a.channel, a.epoch, a."offset", a.data, a.at, a."user", a.connection, a."except", a.fresh
  FROM realtime.append_entries(ARRAY(
    SELECT ROW(
      e.place, e.channel, e.data, e.key, e.size, e.seconds, e."user", e.connection, e."except", NULL, NULL
    )::realtime.entry
    FROM ROWS FROM (jsonb_to_recordset(entries) AS (
      channel text, data text, "user" text, connection text, "except" text, key text, size integer, seconds integer
    )) WITH ORDINALITY AS e (channel, data, "user", connection, "except", key, size, seconds, place)
    ORDER BY e.place
  )) a
$$;
--> statement-breakpoint
-- One publication of a client: as append, which it spares the way into and out of JSON.
CREATE FUNCTION realtime.append_one(
  size integer, seconds integer, key text, INOUT channel text, INOUT data text, INOUT "user" text,
  INOUT connection text, INOUT "except" text, OUT seq bigint, OUT epoch text, OUT "offset" bigint, OUT at bigint,
  OUT fresh boolean
)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT a.channel, a.data, a."user", a.connection, a."except", a.seq, a.epoch, a."offset", a.at, a.fresh
  FROM realtime.append_entries(ARRAY[
    ROW(1, $4, $5, $3, $1, $2, $6, $7, $8, NULL, NULL)::realtime.entry
  ]) a
$$;
--> statement-breakpoint
-- Deletes publications past their channel's age or size, looking at `examine_max` rows after `after` at most, in the
-- order of the log. Answers how many it deleted, and where to go on; NULL when the rest is too young to be looked at.
-- Nothing younger than a minute goes, nor anything within a minute of its age: nodes that lag still read it.
CREATE FUNCTION realtime.trim(after bigint, examine_max integer, OUT deleted bigint, OUT next bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  now_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
  places tid[];
  examined bigint;
BEGIN
  SELECT array_agg(x.ctid) FILTER (
      WHERE x.at < now_ms - x.history_seconds::bigint * 1000 - 60000 OR x."offset" <= x.head - x.history_size
    ), count(*), max(x.seq)
  INTO places, examined, next
  FROM (
    SELECT p.ctid, p.seq, p.at, p."offset", c."offset" AS head, c.history_size, c.history_seconds
    FROM (SELECT q.ctid, q.* FROM realtime.publications q WHERE q.seq > trim.after ORDER BY q.seq LIMIT examine_max) p
    JOIN realtime.channels c ON c.channel = p.channel
    WHERE p.at < now_ms - 60000
  ) x;
  IF examined < examine_max THEN
    next := NULL;
  END IF;
  DELETE FROM realtime.publications p WHERE p.ctid = ANY (places);
  GET DIAGNOSTICS deleted = ROW_COUNT;
END;
$$;
--> statement-breakpoint
-- Forgets channels that nobody published to for `seconds`, at most 10,000 at a time. The log gets another epoch in the
-- same transaction: a forgotten channel that comes back counts from 1, and must not be taken for its former self.
CREATE FUNCTION realtime.forget(seconds bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  idle text[];
BEGIN
  PERFORM 1 FROM realtime.log FOR UPDATE;
  idle := ARRAY(
    SELECT c.channel FROM realtime.channels c
    WHERE c.used_at < extract(epoch FROM clock_timestamp()) * 1000 - seconds * 1000 LIMIT 10000
  );
  IF cardinality(idle) > 0 THEN
    DELETE FROM realtime.publications p WHERE p.channel = ANY (idle);
    DELETE FROM realtime.channels c WHERE c.channel = ANY (idle);
    UPDATE realtime.log SET epoch = realtime.new_epoch(epoch);
  END IF;
  RETURN cardinality(idle);
END;
$$;
