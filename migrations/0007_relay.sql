-- From the outbox to the log. Only the owner of this schema calls these.

-- The transactions that ended between two snapshots, as ranges of ids, in which there may be others that were rolled back.
-- Called where a transaction was open at either; else it is one range.
CREATE FUNCTION realtime.newly_visible(seen pg_snapshot, now pg_snapshot) RETURNS TABLE (first_xid xid8, last_xid xid8)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH bounds AS (
    SELECT pg_snapshot_xmax(seen)::text::bigint - 1 AS bound
    UNION ALL SELECT x::text::bigint FROM pg_snapshot_xip(now) x WHERE x >= pg_snapshot_xmax(seen)
    UNION ALL SELECT pg_snapshot_xmax(now)::text::bigint
  )
  SELECT (b.bound + 1)::text::xid8, (b.next - 1)::text::xid8
  FROM (SELECT bound, lead(bound) OVER (ORDER BY bound) AS next FROM bounds) b
  WHERE b.next > b.bound + 1
  UNION ALL
  SELECT x, x FROM pg_snapshot_xip(seen) x WHERE pg_visible_in_snapshot(x, now)
$$;
--> statement-breakpoint
-- Puts in order one change of a transaction that left that to the relay.
CREATE FUNCTION realtime.order_change(change realtime.unordered) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF change.watch IS NULL THEN
    PERFORM realtime.reorder_row(change.xid, change.began);
  ELSE
    PERFORM realtime.reorder(change.watch, change.xid, change.mark, change.began, change.ended);
  END IF;
END;
$$;
--> statement-breakpoint
-- Tells the channels of a change of a gap, in place of its order.
CREATE FUNCTION realtime.give_up_order(change realtime.unordered, error text) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO realtime.outbox (xid, lsn, channel, watch, fault)
  SELECT change.xid, pg_current_wal_insert_lsn(), o.channel, change.watch,
    left('the changes of nested statements could not be put in order: ' || give_up_order.error, 500)
  FROM (
    SELECT DISTINCT o.channel FROM realtime.outbox o
    WHERE o.xid = change.xid AND o.lsn >= change.began AND o.lsn < change.ended
  ) o
$$;
--> statement-breakpoint
-- Puts in order what transactions that ended since this one left to the relay. A relay that is not alone waits for the
-- other, and finds nothing. What cannot be put in order stops nobody: its channels are told of a gap.
CREATE FUNCTION realtime.order_changes(since xid8) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  changes realtime.unordered[];
  change realtime.unordered;
BEGIN
  PERFORM 1 FROM realtime.unordered u WHERE u.xid >= since ORDER BY u.xid, u.ended FOR UPDATE;
  WITH gone AS (
    DELETE FROM realtime.unordered u WHERE u.xid >= since RETURNING u.*
  )
  SELECT array_agg(g::realtime.unordered ORDER BY g.xid, g.ended) INTO changes FROM gone g;
  -- All within one subtransaction: with many of them, everybody's snapshots would have to look further.
  BEGIN
    FOREACH change IN ARRAY coalesce(changes, '{}') LOOP
      PERFORM realtime.order_change(change);
    END LOOP;
    RETURN;
  EXCEPTION WHEN OTHERS THEN
    -- Again, one by one.
  END;
  FOREACH change IN ARRAY changes LOOP
    BEGIN
      PERFORM realtime.order_change(change);
    EXCEPTION WHEN OTHERS THEN
      PERFORM realtime.give_up_order(change, SQLERRM);
    END;
  END LOOP;
END;
$$;
--> statement-breakpoint
-- The next batch of rows that are visible now: at most `batch_max` rows and about 8 MB, one row at least. The caller puts
-- them in order.
--
-- `state` is what the last call of this session answered; NULL reads everything. It is a snapshot before which all was
-- taken, and while more than a batch waits, also the place in the order up to which it was taken: `snapshot|lsn|xid`.
-- Without a place, rows are looked for among the transactions that have ended since the snapshot alone. So no read walks
-- through rows that were taken and cannot be vacuumed yet, nor through those of a transaction that is still open. Their
-- order is there for the planner. Without it one index is as good to it as the other once a vacuum met no row, and a bare
-- minimum is looked for by place: both walk through all that was taken.
-- `largest` is the most bytes that one of them has.
CREATE FUNCTION realtime.visible(
  batch_max integer, state text, OUT places tid[], OUT next_state text, OUT largest bigint
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
DECLARE
  -- Before the reads, which see no less.
  now pg_snapshot := pg_current_snapshot();
  seen pg_snapshot := nullif(split_part(state, '|', 1), '')::pg_snapshot;
  place_lsn pg_lsn;
  place_xid xid8;
  lowest pg_lsn;
  firsts xid8[];
  lasts xid8[];
  waiting bigint;
  bytes bigint;
  count integer;
  read record;
BEGIN
  -- In a later snapshot, so that it is done for all that is visible now.
  IF EXISTS (SELECT FROM realtime.unordered u WHERE u.xid >= coalesce(pg_snapshot_xmin(seen), '0')) THEN
    PERFORM realtime.order_changes(coalesce(pg_snapshot_xmin(seen), '0'));
  END IF;
  IF seen IS NULL THEN
    place_lsn := '0/0';
    place_xid := '0';
  ELSE
    IF split_part(seen::text, ':', 3) = '' AND split_part(now::text, ':', 3) = '' THEN
      firsts := ARRAY[pg_snapshot_xmax(seen)];
      lasts := ARRAY[(pg_snapshot_xmax(now)::text::bigint - 1)::text::xid8];
    ELSE
      SELECT array_agg(r.first_xid), array_agg(r.last_xid) INTO firsts, lasts FROM realtime.newly_visible(seen, now) r;
    END IF;
    IF strpos(state, '|') > 0 THEN
      place_lsn := split_part(state, '|', 2)::pg_lsn;
      place_xid := split_part(state, '|', 3)::xid8;
    ELSE
      SELECT array_agg(o.place), coalesce(sum(o.bytes), 0), max(o.bytes), count(*) INTO places, bytes, largest, count
      FROM (
        SELECT v.ctid AS place, octet_length(v.data) AS bytes
        FROM unnest(firsts, lasts) r (first_xid, last_xid)
        CROSS JOIN LATERAL (
          SELECT o.ctid, o.data FROM realtime.outbox o
          WHERE o.xid >= r.first_xid AND o.xid <= r.last_xid ORDER BY o.xid, o.lsn LIMIT batch_max + 1
        ) v
        LIMIT batch_max + 1
      ) o;
      IF count <= batch_max AND bytes < 8388608 THEN
        next_state := now::text;
        RETURN;
      END IF;
    END IF;
    -- More than a batch, or a place to go on from: late rows may stand before it.
    SELECT min(o.lsn) INTO lowest
    FROM unnest(firsts, lasts) r (first_xid, last_xid)
    CROSS JOIN LATERAL (
      SELECT o.lsn FROM realtime.outbox o WHERE o.xid >= r.first_xid AND o.xid <= r.last_xid
      ORDER BY o.xid, o.lsn OFFSET 0
    ) o;
    IF place_lsn IS NULL OR lowest <= place_lsn THEN
      place_lsn := lowest;
      place_xid := '0';
    END IF;
  END IF;

  SELECT array_agg(w.place) AS places, count(*) AS count, max(w.total) AS total, max(w.bytes) AS largest,
    (array_agg(w.lsn ORDER BY w.lsn DESC, w.xid DESC))[1] AS last_lsn,
    (array_agg(w.xid ORDER BY w.lsn DESC, w.xid DESC))[1] AS last_xid
  INTO read
  FROM (
    SELECT v.place, v.lsn, v.xid, v.bytes, count(*) OVER () AS total,
      sum(v.bytes) OVER (ORDER BY v.lsn, v.xid) - v.bytes AS before
    FROM (
      SELECT o.ctid AS place, o.lsn, o.xid, coalesce(octet_length(o.data), 0) AS bytes
      FROM realtime.outbox o
      WHERE (o.lsn, o.xid) > (place_lsn, place_xid) AND pg_visible_in_snapshot(o.xid, now)
      ORDER BY o.lsn, o.xid LIMIT batch_max
    ) v
  ) w
  WHERE w.before < 8388608;
  places := read.places;
  largest := read.largest;
  IF read.total = batch_max OR read.total > read.count THEN
    next_state := concat_ws('|', now, read.last_lsn, read.last_xid);
  ELSE
    next_state := now::text;
  END IF;
END;
$$;
--> statement-breakpoint
-- Rows from another time of this database, or of another one that it was restored from, have positions and transaction
-- ids that lie ahead. They are older than everything that is written now: they get the lowest positions, in their order.
-- Answers how many there were.
CREATE FUNCTION realtime.adopt() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  adopted bigint;
BEGIN
  PERFORM realtime.order_changes('0');
  WITH foreign_rows AS (
    SELECT o.ctid AS place, row_number() OVER (ORDER BY o.lsn, o.xid) AS number
    FROM realtime.outbox o
    WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot()) OR o.lsn > pg_current_wal_insert_lsn()
  )
  UPDATE realtime.outbox o SET xid = pg_current_xact_id(), lsn = format('0/%s', to_hex(f.number))::pg_lsn
  FROM foreign_rows f WHERE o.ctid = f.place;
  GET DIAGNOSTICS adopted = ROW_COUNT;
  RETURN adopted;
END;
$$;
--> statement-breakpoint
-- The channels that a template stands for: those that its watch has published to by it, wherever the log is. `also` are
-- channels that the watch is about to publish to.
CREATE FUNCTION realtime.channels_of(watch integer, template text, also text[]) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT k.channel
  FROM (
    SELECT c.channel FROM realtime.channels c WHERE channels_of.watch = ANY (c.watches)
    UNION SELECT p.channel FROM realtime.published p WHERE p.watch = channels_of.watch
    UNION SELECT unnest(also)
  ) k
  WHERE k.channel ~ (
    SELECT '^' || string_agg(CASE WHEN p.n % 2 = 1 THEN replace(p.part, '.', '[.]') ELSE '[^:]*' END, '' ORDER BY p.n) || '$'
    FROM unnest(realtime.template_parts(template)) WITH ORDINALITY p (part, n)
  )
$$;
--> statement-breakpoint
-- Counts faults of captures, by watch and reason.
CREATE FUNCTION realtime.count_faults(watches integer[], reasons text[]) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO realtime.faults AS f (watch, reason, count, last_at)
  SELECT u.watch, u.reason, count(*), clock_timestamp()
  FROM unnest(watches, reasons) u (watch, reason) WHERE u.watch IS NOT NULL GROUP BY u.watch, u.reason
  ON CONFLICT (watch, reason) DO UPDATE SET count = f.count + excluded.count, last_at = excluded.last_at
$$;
--> statement-breakpoint
-- Rows of the outbox as publications, in order: templates resolved to channels, text on one line, and what only counts a
-- fault counted. Empty data is a gap. Of several gaps for all channels of a template the last is told: each may be a hundred
-- thousand publications.
CREATE FUNCTION realtime.resolve(taken realtime.outbox[]) RETURNS realtime.outbox[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  has_more boolean;
  has_faults boolean;
  -- The places of gaps for all channels of a template, behind which there is another one.
  told_later bigint[] := '{}';
BEGIN
  -- A json column keeps the line breaks that its writer put between values; inside strings JSON has none.
  SELECT bool_or(t.data IS NULL OR strpos(t.channel, '{') > 0 OR strpos(t.data, E'\n') > 0 OR strpos(t.data, E'\r') > 0),
    bool_or(t.fault IS NOT NULL)
  INTO has_more, has_faults FROM unnest(taken) t;
  IF has_faults THEN
    PERFORM realtime.count_faults(array_agg(f.watch), array_agg(f.fault)) FROM (
      -- One fault told to several channels counts once.
      SELECT DISTINCT t.xid, t.watch, t.fault FROM unnest(taken) t WHERE t.fault IS NOT NULL
    ) f;
    told_later := ARRAY(
      SELECT g.n FROM (
        SELECT t.n, lead(t.n) OVER (PARTITION BY t.watch, t.channel ORDER BY t.n) IS NOT NULL AS is_told_later
        FROM unnest(taken) WITH ORDINALITY t (xid, lsn, channel, data, key, watch, subject, fault, at, n)
        WHERE t.data IS NULL AND strpos(t.channel, '{') > 0
      ) g WHERE g.is_told_later
    );
  END IF;
  IF NOT has_more THEN
    RETURN taken;
  END IF;
  RETURN ARRAY(
    SELECT ROW(t.xid, t.lsn, c.channel, coalesce(replace(replace(t.data, E'\n', ' '), E'\r', ' '), ''),
      t.key, t.watch, t.subject, t.fault, t.at)::realtime.outbox
    FROM unnest(taken) WITH ORDINALITY t (xid, lsn, channel, data, key, watch, subject, fault, at, n)
    CROSS JOIN LATERAL (
      SELECT t.channel WHERE strpos(t.channel, '{') = 0
      UNION ALL SELECT k FROM realtime.channels_of(t.watch, t.channel, ARRAY(
        SELECT e.channel FROM unnest(taken) WITH ORDINALITY e (xid, lsn, channel, data, key, watch, subject, fault, at, n)
        WHERE e.watch = t.watch AND e.n < t.n AND strpos(e.channel, '{') = 0
      )) k WHERE strpos(t.channel, '{') > 0 AND t.n <> ALL (told_later)
    ) c (channel)
    ORDER BY t.n, c.channel
  );
END;
$$;
--> statement-breakpoint
-- Names a row. A transaction and a place in the write-ahead log come again where the database was set back to an earlier
-- state; the same microsecond with them does not.
CREATE FUNCTION realtime.row_id(xid xid8, lsn pg_lsn, at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT xid || '-' || lsn || '-' || to_hex((extract(epoch FROM at) * 1000000)::bigint)
$$;
--> statement-breakpoint
-- Parks rows of the outbox, named as `realtime.peek` names them. A row becomes a gap of its channels, which the next read
-- finds. One that was a gap already, or whose channel nobody can have, is deleted. `reason` is one of few.
CREATE FUNCTION realtime.park(ids text[], reason text, error text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_nestloop = on
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
  item record;
  beginning bytea;
  parked bigint := 0;
BEGIN
  FOR item IN
    SELECT o.ctid AS place, o.channel, o.watch, o.at, octet_length(o.data) AS bytes,
      o.data IS NOT NULL AND (realtime.is_channel(o.channel) OR strpos(o.channel, '{') > 0) AS is_told
    FROM (SELECT split_part(u.id, '-', 1)::xid8 AS xid, split_part(u.id, '-', 2)::pg_lsn AS lsn FROM unnest(ids) u (id)) t
    JOIN realtime.outbox o ON o.xid = t.xid AND o.lsn = t.lsn
  LOOP
    BEGIN
      SELECT convert_to(CASE WHEN item.bytes > 1048576 THEN substr(o.data, 1, 1000) ELSE o.data END, getdatabaseencoding())
      INTO beginning FROM realtime.outbox o WHERE o.ctid = item.place;
    EXCEPTION WHEN OTHERS THEN
      beginning := NULL;
    END;
    INSERT INTO realtime.parked (channel, watch, data, bytes, error, written_at)
    VALUES (encode(convert_to(item.channel, getdatabaseencoding()), 'escape'), item.watch, beginning, item.bytes,
      left(park.error, 2000), item.at);
    IF item.is_told THEN
      UPDATE realtime.outbox o SET data = NULL, key = NULL, fault = 'parked: ' || reason WHERE o.ctid = item.place;
    ELSE
      DELETE FROM realtime.outbox o WHERE o.ctid = item.place;
    END IF;
    parked := parked + 1;
  END LOOP;
  RETURN parked;
END;
$$;
--> statement-breakpoint
-- Parks those of these rows whose data is longer than `bytes_max`, and answers where all of them are then, and how many
-- were parked. The length of a text that is stored out of line is read from its pointer, so a large one is never in memory.
CREATE FUNCTION realtime.park_large(INOUT places tid[], bytes_max bigint, OUT parked bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_nestloop = on
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
  large text[];
  ids text[];
BEGIN
  SELECT array_agg(realtime.row_id(o.xid, o.lsn, o.at)) FILTER (WHERE octet_length(o.data) > bytes_max) INTO large
  FROM realtime.outbox o WHERE o.ctid = ANY (places);
  parked := 0;
  IF large IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(realtime.row_id(o.xid, o.lsn, o.at)) INTO ids FROM realtime.outbox o WHERE o.ctid = ANY (places);
  parked := realtime.park(large, 'too large', format('The row is larger than MAX_ROW_BYTES (%s bytes).', bytes_max));
  places := ARRAY(
    SELECT o.ctid
    FROM (SELECT split_part(u.id, '-', 1)::xid8 AS xid, split_part(u.id, '-', 2)::pg_lsn AS lsn FROM unnest(ids) u (id)) t
    JOIN realtime.outbox o ON o.xid = t.xid AND o.lsn = t.lsn
  );
END;
$$;
--> statement-breakpoint
-- The row that a read of one row would answer next, as `realtime.peek` names it; NULL when there is none.
CREATE FUNCTION realtime.next_id() RETURNS text
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT realtime.row_id(o.xid, o.lsn, o.at) FROM realtime.outbox o
  WHERE o.ctid = (SELECT v.places[1] FROM realtime.visible(1, NULL) v)
$$;
--> statement-breakpoint
-- Forgets where row triggers' changes are, of transactions that have ended and whose changes are in order.
CREATE FUNCTION realtime.forget_row_changes() RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM realtime.row_changes r
  WHERE (r.xid < pg_snapshot_xmin(pg_current_snapshot()) OR r.xid >= pg_snapshot_xmax(pg_current_snapshot()))
    AND NOT EXISTS (SELECT FROM realtime.unordered u WHERE u.xid = r.xid)
$$;
--> statement-breakpoint
-- Forgets what was parked a month ago, and what is more than 10,000 rows.
CREATE FUNCTION realtime.forget_parked() RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM realtime.parked p
  WHERE p.parked_at < clock_timestamp() - interval '30 days'
    OR p.number <= (SELECT max(q.number) - 10000 FROM realtime.parked q)
$$;
--> statement-breakpoint
-- The first rule of a channel. Without a pattern: no rule matches, or it is the name of no channel.
CREATE FUNCTION realtime.rule_of(channel text, rules jsonb) RETURNS realtime.rule
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  rule jsonb;
BEGIN
  IF realtime.is_channel(channel) THEN
    FOR n IN 0..jsonb_array_length(rules) - 1 LOOP
      rule := rules -> n;
      IF channel ~ (rule ->> 'pattern') THEN
        RETURN ROW(rule ->> 'pattern', rule -> 'recoverable', rule -> 'historySize', rule -> 'historySeconds')::realtime.rule;
      END IF;
    END LOOP;
  END IF;
  RETURN NULL;
END;
$$;
--> statement-breakpoint
-- Moves one batch from the outbox into the log, as one transaction, and answers what it moved, in order. Rows of
-- ephemeral channels (a rule says so) are answered too, with seq and offset 0, and stored nowhere; rows whose key the
-- channel's log already has are gone without a trace; rows whose channel is no channel are dropped.
--
-- `rules`: array of {pattern, recoverable, historySize, historySeconds}; the first whose pattern matches counts.
--
-- Rows of more than `bytes_max` bytes are parked. The last row has no channel and reports: offset = rows taken, at = rows
-- dropped, "user" = rows parked, data = the state for the next call.
CREATE FUNCTION realtime.relay(batch_max integer, rules jsonb, state text DEFAULT NULL, bytes_max bigint DEFAULT 16777216)
RETURNS TABLE (
  seq bigint, channel text, epoch text, "offset" bigint, data text, at bigint,
  "user" text, connection text, "except" text, xid xid8
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  batch record;
  taken integer := 0;
  -- A change of the batch stands at one place of these.
  channels text[];
  datas text[];
  keys text[];
  xids xid8[];
  watches integer[];
  faults text[];
  has_more boolean;
  made realtime.numbered;
  dropped bigint := 0;
  parked bigint;
BEGIN
  batch := realtime.visible(batch_max, state);
  IF batch.places IS NOT NULL THEN
    IF batch.largest > bytes_max THEN
      SELECT p.places, p.parked INTO batch.places, parked FROM realtime.park_large(batch.places, bytes_max) p;
    END IF;
    -- The fence. Rows that another relay took meanwhile are not there any more when this one deletes.
    PERFORM 1 FROM realtime.log FOR UPDATE;
    WITH gone AS (
      DELETE FROM realtime.outbox o WHERE o.ctid = ANY (batch.places) RETURNING o.*
    )
    SELECT count(*), array_agg(g.channel), array_agg(g.data), array_agg(g.key),
      array_agg(g.xid), array_agg(g.watch), array_agg(g.fault),
      bool_or(g.data IS NULL OR g.fault IS NOT NULL OR strpos(g.channel, '{') > 0 OR strpos(g.data, E'\n') > 0
        OR strpos(g.data, E'\r') > 0)
    INTO taken, channels, datas, keys, xids, watches, faults, has_more
    FROM (SELECT g.* FROM gone g ORDER BY g.lsn, g.xid) g;
    IF has_more THEN
      SELECT array_agg(r.channel), array_agg(r.data), array_agg(r.key), array_agg(r.xid),
        array_agg(r.watch), array_agg(r.fault)
      INTO channels, datas, keys, xids, watches, faults
      FROM (
        SELECT r.* FROM unnest(realtime.resolve(ARRAY(
          SELECT ROW(t.xid, NULL, t.channel, t.data, t.key, t.watch, NULL, t.fault, NULL)::realtime.outbox
          FROM unnest(xids, channels, datas, keys, watches, faults) WITH ORDINALITY t (xid, channel, data, key, watch, fault, n)
          ORDER BY t.n
        ))) WITH ORDINALITY r (xid, lsn, channel, data, key, watch, subject, fault, at, n) ORDER BY r.n
      ) r;
    END IF;
  END IF;
  IF channels IS NOT NULL THEN
    made := realtime.append_entries(channels, datas, keys, NULL, NULL, NULL, NULL, NULL, xids, watches, rules);
    IF -1 = ANY (made.offsets) THEN
      -- Faults were not to reach any channel.
      dropped := (SELECT count(*) FROM unnest(made.offsets, faults) u ("offset", fault) WHERE u."offset" = -1 AND u.fault IS NULL);
    END IF;
  END IF;
  RETURN QUERY
  SELECT e.seq, e.channel, CASE WHEN e.seq > 0 THEN coalesce(e.epoch, made.epoch) ELSE '' END, e."offset", e.data, made.at,
    NULL::text, NULL::text, NULL::text, e.xid
  FROM (
    SELECT unnest(made.seqs) AS seq, unnest(channels) AS channel, unnest(made.epochs) AS epoch,
      unnest(made.offsets) AS "offset", unnest(datas) AS data, unnest(xids) AS xid
  ) e WHERE e.seq IS NOT NULL
  UNION ALL
  SELECT 0, NULL, '', taken, batch.next_state, dropped, parked::text, NULL, NULL, NULL;
END;
$$;
--> statement-breakpoint
-- The next batch without taking it, for a log outside of this database; the caller calls `taken` once the rows are stored
-- there. `id` names a row of the outbox: one that stands for all channels of a template is answered once for each of them,
-- or once without a channel.
-- `is_templated`: the channel came from a template of the watch. The last row has no channel, the next state as data, and
-- as key how many rows were parked.
CREATE FUNCTION realtime.peek(batch_max integer, state text DEFAULT NULL, bytes_max bigint DEFAULT 16777216)
RETURNS TABLE (id text, channel text, data text, key text, watch integer, is_templated boolean, fault text, xid xid8)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  batch record;
  found_rows realtime.outbox[];
  parked bigint;
BEGIN
  batch := realtime.visible(batch_max, state);
  IF batch.places IS NOT NULL THEN
    -- A writer need not have waited for its commit to be flushed. What is told elsewhere must not be lost here.
    IF pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn() THEN
      PERFORM pg_logical_emit_message(true, 'sobranie', '');
    END IF;
    IF batch.largest > bytes_max THEN
      SELECT p.places, p.parked INTO batch.places, parked FROM realtime.park_large(batch.places, bytes_max) p;
    END IF;
    SELECT array_agg(o::realtime.outbox ORDER BY o.lsn, o.xid) INTO found_rows
    FROM realtime.outbox o WHERE o.ctid = ANY (batch.places);
    RETURN QUERY
    SELECT realtime.row_id(f.xid, f.lsn, f.at), s.channel, s.data, s.key, s.watch,
      coalesce(s.channel <> ALL (w.channels), false), s.fault, f.xid
    FROM unnest(found_rows) f
    LEFT JOIN unnest(realtime.resolve(found_rows)) WITH ORDINALITY
      s (xid, lsn, channel, data, key, watch, subject, fault, at, place) ON s.xid = f.xid AND s.lsn = f.lsn
    LEFT JOIN realtime.watched w ON w.number = s.watch
    ORDER BY f.lsn, f.xid, s.place;
  END IF;
  RETURN QUERY
  SELECT NULL::text, NULL::text, batch.next_state, parked::text, NULL::integer, false, NULL::text, NULL::xid8;
END;
$$;
--> statement-breakpoint
-- Deletes rows that were peeked at and published elsewhere, and remembers the channels that templates made.
CREATE FUNCTION realtime.taken(ids text[], watches integer[] DEFAULT '{}', channels text[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
BEGIN
  DELETE FROM realtime.outbox o
  USING (SELECT split_part(u.id, '-', 1)::xid8 AS xid, split_part(u.id, '-', 2)::pg_lsn AS lsn FROM unnest(ids) u (id)) t
  WHERE o.xid = t.xid AND o.lsn = t.lsn;
  INSERT INTO realtime.published AS p (watch, channel)
  SELECT DISTINCT u.watch, u.channel FROM unnest(watches, channels) u (watch, channel)
  ON CONFLICT (watch, channel) DO UPDATE SET last_at = excluded.last_at;
END;
$$;
--> statement-breakpoint
-- What waits, for the operator: rows, counted up to 10,000, and the age of the oldest in seconds. `above` is where to
-- begin, and `lowest` the place of the oldest, or the end: rows that were taken and cannot be vacuumed lie before it, and
-- what commits late. So a caller begins at 0/0 now and then.
CREATE FUNCTION realtime.outbox_stats(
  above pg_lsn DEFAULT '0/0', OUT pending bigint, OUT lag_seconds double precision, OUT lowest pg_lsn
)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
  SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(o.at)), 0)::double precision,
    coalesce(min(o.lsn), (SELECT pg_current_wal_insert_lsn()))
  FROM (
    SELECT o.at, o.lsn FROM realtime.outbox o WHERE o.lsn >= outbox_stats.above ORDER BY o.lsn, o.xid LIMIT 10000
  ) o
$$;
