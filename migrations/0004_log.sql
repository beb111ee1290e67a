-- The log: what clients publish, and what is forgotten. Only the owner of this schema calls these.

-- Appends publications of clients behind the same fence, with the same numbering, as the relay does for tables. Up to
-- eight go one by one and are carried by the notification, more in one statement.
--
-- `entries`: array of {channel, data (JSON as text), user, connection, except, key, size, seconds}. Answers one row per
-- entry, in their order; `fresh` is false for one whose key its channel's log has: it changed nothing, and the row is
-- the position of the first.
CREATE FUNCTION realtime.append(entries jsonb)
RETURNS TABLE (
  seq bigint, channel text, epoch text, "offset" bigint, data text, at bigint,
  "user" text, connection text, "except" text, fresh boolean
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
  log_epoch text;
  topic text;
  before bigint;
  after bigint := 0;
  now_ms bigint;
  entry jsonb;
  made record;
  carried text := '';
BEGIN
  SELECT l.epoch, l.topic INTO log_epoch, topic FROM realtime.log l FOR UPDATE;
  now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);

  IF jsonb_array_length(entries) <= 8 THEN
    FOR entry IN SELECT e.value FROM jsonb_array_elements(entries) e LOOP
      made := realtime.append_row(
        log_epoch, (entry ->> 'size')::integer, (entry ->> 'seconds')::integer, entry ->> 'key', entry ->> 'channel',
        entry ->> 'data', now_ms, entry ->> 'user', entry ->> 'connection', entry ->> 'except'
      );
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
      RETURN NEXT;
      IF fresh THEN
        after := seq;
        carried := carried || E'\n' || made.carried;
      END IF;
    END LOOP;
    IF after > 0 THEN
      PERFORM realtime.tell(topic, after, carried);
    END IF;
    RETURN;
  END IF;

  SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO before FROM realtime.publications_seq_seq;

  -- A key counts as long as its publication is history; what is only stored a while longer gives it free.
  IF entries @? '$[*].key ? (@ != null)' THEN
    UPDATE realtime.publications p SET key = NULL
    FROM jsonb_to_recordset(entries) AS e (channel text, key text, size integer, seconds integer)
    JOIN realtime.channels c ON c.channel = e.channel
    WHERE p.channel = e.channel AND p.key = e.key
      AND (p."offset" <= c."offset" - e.size OR p.at <= now_ms - e.seconds::bigint * 1000);
  END IF;

  RETURN QUERY
  WITH given AS MATERIALIZED (
    SELECT e.place AS id, e.channel, e.data, e."user", e.connection, e."except", e.key, e.size, e.seconds,
      CASE WHEN e.key IS NULL THEN e.place ELSE min(e.place) OVER (PARTITION BY e.channel, e.key) END AS first_id
    FROM ROWS FROM (jsonb_to_recordset(entries) AS (
      channel text, data text, "user" text, connection text, "except" text, key text, size integer, seconds integer
    )) WITH ORDINALITY AS e (channel, data, "user", connection, "except", key, size, seconds, place)
  ), known AS MATERIALIZED (
    SELECT g.id, p.seq, p."offset", p.data, p.at, p.from_user, p.from_connection, p.except_connection
    FROM given g JOIN realtime.publications p ON p.channel = g.channel AND p.key = g.key
    WHERE g.key IS NOT NULL AND g.id = g.first_id
  ), fresh AS MATERIALIZED (
    SELECT g.*, row_number() OVER (PARTITION BY g.channel ORDER BY g.id) AS place,
      count(*) OVER (PARTITION BY g.channel) AS total
    FROM given g
    WHERE g.id = g.first_id AND g.id NOT IN (SELECT k.id FROM known k)
  ), heads AS MATERIALIZED (
    INSERT INTO realtime.channels AS h (channel, epoch, "offset", history_size, history_seconds, used_at)
    SELECT f.channel, log_epoch, f.total, f.size, f.seconds, now_ms FROM fresh f WHERE f.place = 1
    ON CONFLICT (channel) DO UPDATE SET
      "offset" = h."offset" + excluded."offset", history_size = excluded.history_size,
      history_seconds = excluded.history_seconds, used_at = excluded.used_at
    RETURNING h.channel, h.epoch, h."offset" AS head, h.history_size AS size
  ), numbered AS MATERIALIZED (
    SELECT nextval('realtime.publications_seq_seq') AS seq, f.*
    FROM (
      SELECT f.*, h.epoch, h.head - f.total + f.place AS "offset"
      FROM fresh f JOIN heads h ON h.channel = f.channel ORDER BY f.id
    ) f
  ), appended AS (
    INSERT INTO realtime.publications
      (seq, channel, "offset", data, at, from_user, from_connection, except_connection, key)
    SELECT n.seq, n.channel, n."offset", n.data, now_ms, n."user", n.connection, n."except", n.key FROM numbered n
  ), trimmed AS (
    -- As the relay does.
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
  SELECT coalesce(n.seq, k.seq), g.channel,
    coalesce(n.epoch, (SELECT c.epoch FROM realtime.channels c WHERE c.channel = g.channel)),
    coalesce(n."offset", k."offset"), coalesce(n.data, k.data), CASE WHEN n.seq IS NULL THEN k.at ELSE now_ms END,
    CASE WHEN n.seq IS NULL THEN k.from_user ELSE n."user" END,
    CASE WHEN n.seq IS NULL THEN k.from_connection ELSE n.connection END,
    CASE WHEN n.seq IS NULL THEN k.except_connection ELSE n."except" END,
    coalesce(n.id = g.id, false)
  FROM given g
  LEFT JOIN numbered n ON n.id = g.first_id
  LEFT JOIN known k ON k.id = g.first_id
  ORDER BY g.id;

  SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO after FROM realtime.publications_seq_seq;
  IF after <> before THEN
    PERFORM realtime.tell(topic, after, NULL);
  END IF;
END;
$$;
--> statement-breakpoint
-- One publication of a client: as append, which it spares the way into and out of JSON.
CREATE FUNCTION realtime.append_one(
  size integer, seconds integer, key text, INOUT channel text, INOUT data text, INOUT "user" text,
  INOUT connection text, INOUT "except" text, OUT seq bigint, OUT epoch text, OUT "offset" bigint, OUT at bigint,
  OUT fresh boolean
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  topic text;
  made record;
BEGIN
  SELECT l.epoch, l.topic INTO append_one.epoch, topic FROM realtime.log l FOR UPDATE;
  made := realtime.append_row(
    epoch, size, seconds, key, channel, data, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, "user",
    connection, "except"
  );
  IF made.fresh THEN
    PERFORM realtime.tell(topic, made.seq, E'\n' || made.carried);
  END IF;
  channel := made.channel;
  data := made.data;
  "user" := made."user";
  connection := made.connection;
  "except" := made."except";
  seq := made.seq;
  epoch := made.epoch;
  "offset" := made."offset";
  at := made.at;
  fresh := made.fresh;
END;
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
--> statement-breakpoint
REVOKE ALL ON FUNCTION
  realtime.append(jsonb), realtime.append_one(integer, integer, text, text, text, text, text, text),
  realtime.trim(bigint, integer), realtime.forget(bigint)
FROM PUBLIC;
