-- The log: what is appended to it, and what is forgotten. Only the owner of this schema calls these.

-- Tells the other nodes at the commit that the log reaches to `seq`: `<seq> <writer>`, and in the lines after that the
-- last publications themselves, if there are any that can be `carried` in the 8,000 bytes that a notification must not
-- reach. Without them, the others read the log. The writer's own process has the rows already. Silent in a session whose
-- process tells the others itself, by another way than notifications.
CREATE FUNCTION realtime.tell(topic text, seq bigint, carried text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  told text := seq::text || ' ' || current_setting('application_name');
BEGIN
  IF current_setting('realtime.quiet', true) = 'on' THEN
    RETURN;
  END IF;
  IF octet_length(told) + octet_length(carried) < 8000 THEN
    told := told || carried;
  END IF;
  -- An assignment is evaluated at once; PERFORM would start a statement.
  told := pg_notify(topic || '_log', told)::text;
END;
$$;
--> statement-breakpoint
-- The epoch in which a channel without a row of its own stands at 0: that of the log, until one of this name is forgotten.
-- Each that is forgotten by then moves on alone, and nobody else's position is void.
CREATE FUNCTION realtime.first_epoch(channel text, log_epoch text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN log_epoch || coalesce((
    SELECT '-' || f.times FROM realtime.forgotten f WHERE f.hash = hashtext(first_epoch.channel) AND f.epoch = log_epoch
  ), '');
END;
$$;
--> statement-breakpoint
-- Names this incarnation of the database: the cluster's data, the database, its timeline, the table. A promoted standby
-- has another timeline. A dump that was restored has other oids, and its row of realtime.log another `xmin`. Its end is what
-- may change while a session lasts: realtime.append_entries looks at that alone.
CREATE FUNCTION realtime.signature(log_xmin bigint) RETURNS text
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT concat_ws('.',
    CASE WHEN has_function_privilege('pg_control_system()', 'execute')
      THEN (SELECT c.system_identifier FROM pg_control_system() c) END,
    (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), 'realtime.log'::regclass::oid, log_xmin)
$$;
--> statement-breakpoint
-- Gives the log another epoch, and all channels with it: what was told of the earlier one cannot be vouched for, so
-- everybody who holds a position gets a gap. Offsets count on, and keys stay used.
CREATE FUNCTION realtime.renew() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fresh text;
BEGIN
  SELECT realtime.new_epoch(l.epoch) INTO fresh FROM realtime.log l FOR UPDATE;
  UPDATE realtime.log SET epoch = fresh,
    generation = greatest(generation + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
    signature = realtime.signature(pg_current_xact_id()::text::bigint & 4294967295);
  UPDATE realtime.channels SET epoch = fresh;
END;
$$;
--> statement-breakpoint
-- Renews the log if this is another incarnation of the database than the one that told it: a standby that was promoted may
-- lack the last commits, and a dump is of an earlier time. Answers whether it did.
CREATE FUNCTION realtime.vouch() RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  log record;
BEGIN
  SELECT l.signature, realtime.signature(l.xmin::text::bigint) AS present INTO log FROM realtime.log l;
  IF log.signature = log.present THEN
    RETURN false;
  END IF;
  SELECT l.signature, realtime.signature(l.xmin::text::bigint) AS present INTO log FROM realtime.log l FOR UPDATE;
  IF log.signature IS NULL THEN
    UPDATE realtime.log SET signature = realtime.signature(pg_current_xact_id()::text::bigint & 4294967295);
    RETURN false;
  ELSIF log.signature = log.present THEN
    RETURN false;
  END IF;
  PERFORM realtime.renew();
  RETURN true;
END;
$$;
--> statement-breakpoint
-- A relay with this sync layer leads from now on. Whoever reads another layer hears nothing any more: after a change the log
-- is renewed, which tells everybody.
CREATE FUNCTION realtime.lead(layer text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  former text;
BEGIN
  PERFORM realtime.vouch();
  SELECT l.layer INTO former FROM realtime.log l FOR UPDATE;
  IF former = lead.layer THEN
    RETURN;
  ELSIF former IS NOT NULL THEN
    PERFORM realtime.renew();
  END IF;
  UPDATE realtime.log l SET layer = lead.layer,
    signature = realtime.signature(pg_current_xact_id()::text::bigint & 4294967295);
END;
$$;
--> statement-breakpoint
-- What a node looks at every few seconds. It names the epoch that it knew and how far the database had written then: a
-- database that has written less was set back, as by a snapshot of its disk.
CREATE FUNCTION realtime.look(
  known_epoch text, known_place pg_lsn, OUT epoch text, OUT generation bigint, OUT place pg_lsn, OUT layer text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'this is a standby' USING ERRCODE = 'read_only_sql_transaction';
  END IF;
  PERFORM realtime.vouch();
  place := pg_current_wal_flush_lsn();
  IF place < known_place THEN
    PERFORM 1 FROM realtime.log l WHERE l.epoch = known_epoch FOR UPDATE;
    IF FOUND THEN
      PERFORM realtime.renew();
    END IF;
  END IF;
  SELECT l.epoch, l.generation, l.layer INTO epoch, generation, layer FROM realtime.log l;
END;
$$;
--> statement-breakpoint
-- Appends publications behind the fence, the one way into the log: numbers them, ignores those whose key their channel's
-- log has, and tells the other nodes. Up to eight are carried by the notification.
--
-- An entry is what stands at one place of the arrays; an array that is NULL stands for NULLs. The rules say how long a
-- channel's history is, or where there are none `sizes` and `seconds`. Empty data is a gap, which an ephemeral channel is
-- not told.
--
-- Arrays of columns, as a row that is put together and taken apart again costs more than to store it. The callers have the
-- settings that the plans need, as each setting costs a call.
CREATE FUNCTION realtime.append_entries(
  channels text[], data text[], keys text[], sizes integer[], seconds integer[], users text[], connections text[],
  excepts text[], xids xid8[], watches integer[], rules jsonb
)
RETURNS realtime.numbered
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  log record;
  now_ms bigint;
  count integer := cardinality(channels);
  -- The entries in the order of their channels, and of each channel as they were given.
  places integer[] := '{1}';
  place integer;
  -- The last entry's channel, how it stands, and the offset of its last publication. Its watches are never an empty array,
  -- from which even NULL would differ: there is -1.
  channel text;
  stood realtime.standing;
  rule realtime.rule;
  head bigint;
  epoch text;
  -- It is no channel, an ephemeral one, or one with an epoch of its own.
  is_special boolean;
  -- Of each entry with a key: the last one before it that has the same, and the one whose publication has it. NULL: an
  -- earlier call's.
  befores integer[];
  holders integer[];
  known record;
  seqs bigint[];
  offsets bigint[] := array_fill(NULL::bigint, ARRAY[count]);
  epochs text[];
  repeats boolean[];
  known_seqs bigint[];
  appended integer;
  carried text := '';
BEGIN
  -- What is told was flushed, whatever the session has as its default: a crash must not take it back.
  IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  SELECT l.epoch, l.topic, l.signature LIKE concat_ws('.',
      '%', substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), l.tableoid, l.xmin) AS is_vouched
  INTO log FROM realtime.log l FOR UPDATE;
  IF log.is_vouched IS NOT true THEN
    PERFORM realtime.vouch();
    SELECT l.epoch, l.topic INTO log FROM realtime.log l;
  END IF;
  now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
  IF count > 1 THEN
    places := ARRAY(
      SELECT e.place FROM (SELECT unnest(channels) AS channel, generate_series(1, count) AS place) e
      ORDER BY e.channel COLLATE "C", e.place
    );
    IF num_nulls(VARIADIC keys) < count THEN
      SELECT array_agg(e.before ORDER BY e.place) INTO befores
      FROM (
        SELECT u.place, lag(u.place) OVER (PARTITION BY u.channel, u.key ORDER BY u.place) AS before
        FROM unnest(channels, keys) WITH ORDINALITY u (channel, key, place)
      ) e;
    END IF;
  END IF;

  -- Channel by channel: what concerns one as a whole is done once, whatever the order of entries, and an entry costs four
  -- expressions. The statements are few and have small plans: to start one costs as much as several entries.
  FOREACH place IN ARRAY places LOOP
    IF channels[place] IS DISTINCT FROM channel OR watches[place] <> ALL (stood.watches) THEN
      IF channels[place] IS DISTINCT FROM channel THEN
        channel := channels[place];
        SELECT c.epoch, c.history_size, c.history_seconds, coalesce(c.watches, '{-1}'), coalesce(greatest(c."offset", (
            SELECT p."offset" FROM realtime.publications p
            WHERE p.channel = channel ORDER BY p."offset" DESC LIMIT 1
          )), 0)
        INTO stood.epoch, stood.history_size, stood.history_seconds, stood.watches, head
        FROM (SELECT) one LEFT JOIN realtime.channels c ON c.channel = channel;
        IF rules IS NULL THEN
          rule := ROW('', true, sizes[place], seconds[place]);
        ELSE
          rule := realtime.rule_of(channel, rules);
        END IF;
        epoch := coalesce(stood.epoch, realtime.first_epoch(channel, log.epoch));
        is_special := epoch <> log.epoch OR rule.recoverable IS NOT true;
      END IF;
      IF rule.recoverable AND (stood.history_size IS DISTINCT FROM rule.size OR stood.history_seconds IS DISTINCT FROM rule.seconds
        OR watches[place] <> ALL (stood.watches)) THEN
        -- A channel's first publication, and the rare one that comes under another rule or by another watch.
        INSERT INTO realtime.channels AS h (channel, epoch, "offset", history_size, history_seconds, used_at, watches)
        VALUES (channel, epoch, 0, rule.size, rule.seconds, now_ms,
          CASE WHEN watches[place] IS NOT NULL THEN ARRAY[watches[place]] END)
        ON CONFLICT ON CONSTRAINT channels_pkey DO UPDATE SET
          history_size = excluded.history_size, history_seconds = excluded.history_seconds,
          watches = CASE WHEN excluded.watches <@ h.watches OR excluded.watches IS NULL THEN h.watches
            ELSE coalesce(h.watches, '{}') || excluded.watches END
        RETURNING h.history_size, h.history_seconds, coalesce(h.watches, '{-1}')
        INTO stood.history_size, stood.history_seconds, stood.watches;
      END IF;
    END IF;
    IF is_special OR keys[place] IS NOT NULL THEN
      IF rule.recoverable IS NOT true THEN
        offsets[place] := CASE WHEN rule.pattern IS NULL THEN -1 WHEN data[place] <> '' THEN 0 END;
        CONTINUE;
      END IF;
      IF is_special THEN
        epochs := coalesce(epochs, array_fill(NULL::text, ARRAY[count]));
        epochs[place] := epoch;
      END IF;
      IF keys[place] IS NOT NULL THEN
        holders[place] := holders[befores[place]];
        IF holders[place] IS NOT NULL THEN
          SELECT offsets[holders[place]] AS "offset", now_ms AS at, NULL::bigint AS seq INTO known;
        ELSE
          SELECT p."offset", p.at, p.seq INTO known
          FROM realtime.publications p WHERE p.channel = channel AND p.key = keys[place];
        END IF;
        IF known."offset" > head - rule.size AND known.at > now_ms - rule.seconds::bigint * 1000 THEN
          repeats := coalesce(repeats, array_fill(NULL::boolean, ARRAY[count]));
          repeats[place] := true;
          offsets[place] := known."offset";
          known_seqs[place] := known.seq;
          CONTINUE;
        END IF;
        -- A key counts as long as its publication is history; what is only stored a while longer gives it free.
        IF holders[place] IS NOT NULL THEN
          keys[holders[place]] := NULL;
        ELSIF known.seq IS NOT NULL THEN
          UPDATE realtime.publications p SET key = NULL WHERE p.seq = known.seq;
        END IF;
        holders[place] := place;
      END IF;
    END IF;
    head := head + 1;
    offsets[place] := head;
  END LOOP;

  FOR place IN 1..count LOOP
    seqs[place] := CASE WHEN offsets[place] > 0 AND repeats[place] IS NOT true THEN nextval('realtime.publications_seq_seq')
      WHEN offsets[place] = 0 THEN 0 END;
  END LOOP;
  appended := cardinality(array_remove(array_remove(seqs, NULL), 0::bigint));
  IF appended > 0 THEN
    INSERT INTO realtime.publications
      (seq, channel, "offset", data, at, from_user, from_connection, except_connection, key, xid)
    SELECT e.seq, e.channel, e."offset", e.data, now_ms, e."user", e.connection, e."except", e.key, e.xid
    FROM (
      SELECT unnest(seqs) AS seq, unnest(channels) AS channel, unnest(offsets) AS "offset", unnest(append_entries.data) AS data,
        unnest(users) AS "user", unnest(connections) AS connection, unnest(excepts) AS "except", unnest(keys) AS key,
        unnest(xids) AS xid
    ) e WHERE e.seq > 0;
    IF appended > 8 THEN
      carried := NULL;
    ELSE
      FOR place IN 1..count LOOP
        carried := carried || CASE WHEN coalesce(seqs[place], 0) = 0 THEN ''
          WHEN octet_length(data[place]) < 8000 AND data[place] <> '' AND strpos(data[place], E'\n') = 0 THEN
            E'\n' || json_build_array(channels[place], coalesce(epochs[place], log.epoch), offsets[place], now_ms,
              users[place], connections[place], excepts[place], xids[place])::text || E'\n' || data[place] END;
      END LOOP;
    END IF;
    carried := realtime.tell(log.topic, currval('realtime.publications_seq_seq'), carried)::text;
  END IF;
  IF repeats IS NOT NULL AND rules IS NULL THEN
    FOR place IN 1..count LOOP
      IF repeats[place] THEN
        seqs[place] := coalesce(known_seqs[place], seqs[holders[place]]);
      END IF;
    END LOOP;
  END IF;
  RETURN ROW(seqs, offsets, epochs, repeats, log.epoch, now_ms)::realtime.numbered;
END;
$$;
--> statement-breakpoint
-- Appends publications of clients. `entries`: array of {channel, data (JSON as text), user, connection, except, key, size,
-- seconds}. Answers one row per entry, in their order. `fresh` is false for one whose key was used: it changed nothing,
-- and the row is the first's.
CREATE FUNCTION realtime.append(entries jsonb) RETURNS SETOF realtime.appended
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  channels text[];
  datas text[];
  keys text[];
  sizes integer[];
  seconds integer[];
  users text[];
  connections text[];
  excepts text[];
  made realtime.numbered;
BEGIN
  SELECT array_agg(e.channel), array_agg(e.data), array_agg(e.key), array_agg(e.size), array_agg(e.seconds),
    array_agg(e."user"), array_agg(e.connection), array_agg(e."except")
  INTO channels, datas, keys, sizes, seconds, users, connections, excepts
  FROM (
    SELECT r.* FROM ROWS FROM (jsonb_to_recordset(entries) AS (
      channel text, data text, "user" text, connection text, "except" text, key text, size integer, seconds integer
    )) WITH ORDINALITY AS r (channel, data, "user", connection, "except", key, size, seconds, place)
    ORDER BY r.place
  ) e;
  IF channels IS NULL THEN
    RETURN;
  END IF;
  made := realtime.append_entries(channels, datas, keys, sizes, seconds, users, connections, excepts, NULL, NULL, NULL);
  RETURN QUERY
  SELECT made.seqs[e.n], channels[e.n], coalesce(made.epochs[e.n], made.epoch), made.offsets[e.n], coalesce(p.data, datas[e.n]),
    coalesce(p.at, made.at), CASE WHEN p.seq IS NULL THEN users[e.n] ELSE p.from_user END,
    CASE WHEN p.seq IS NULL THEN connections[e.n] ELSE p.from_connection END,
    CASE WHEN p.seq IS NULL THEN excepts[e.n] ELSE p.except_connection END, p.seq IS NULL, p.xid
  FROM generate_series(1, cardinality(channels)) e (n) LEFT JOIN LATERAL (
    SELECT * FROM realtime.publications p WHERE made.repeats[e.n] AND p.seq = made.seqs[e.n] LIMIT 1
  ) p ON true;
END;
$$;
--> statement-breakpoint
-- One publication of a client: as append, which it spares the way into and out of JSON.
CREATE FUNCTION realtime.append_one(
  size integer, seconds integer, key text, channel text, data text, "user" text, connection text, "except" text
)
RETURNS realtime.appended
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  made realtime.numbered;
  answer realtime.appended;
BEGIN
  made := realtime.append_entries(ARRAY[channel], ARRAY[data], ARRAY[key], ARRAY[size],
    ARRAY[seconds], ARRAY["user"], ARRAY[connection], ARRAY["except"], NULL, NULL, NULL);
  IF made.repeats IS NOT NULL THEN
    SELECT p.seq, p.channel, coalesce(made.epochs[1], made.epoch), p."offset", p.data, p.at, p.from_user, p.from_connection,
      p.except_connection, false, p.xid
    INTO answer FROM realtime.publications p WHERE p.seq = made.seqs[1];
    RETURN answer;
  END IF;
  RETURN ROW(made.seqs[1], channel, coalesce(made.epochs[1], made.epoch), made.offsets[1], data, made.at, "user", connection,
    "except", true, NULL)::realtime.appended;
END;
$$;
--> statement-breakpoint
-- The ages in seconds at which publications are looked at to be trimmed: each rule's age, when they end by it; and a
-- minute and its doubles, when they may be past the rule's size. So each is looked at a few times in its life, in the order
-- of the log, whatever other channels keep; and it is deleted before it is twice as old as it has to be.
--
-- A minute is added everywhere: nodes that lag still read what is past its end.
CREATE FUNCTION realtime.trimming_ages() RETURNS TABLE (age integer, seq bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
  WITH RECURSIVE kept AS (
    -- From one value to the next by the index: channels may be millions.
    SELECT min(c.history_seconds) AS seconds FROM realtime.channels c
    UNION ALL
    SELECT (SELECT min(c.history_seconds) FROM realtime.channels c WHERE c.history_seconds > k.seconds)
    FROM kept k WHERE k.seconds IS NOT NULL
  ), age AS (
    SELECT least(k.seconds::bigint + 60, 2147483647)::integer AS age FROM kept k WHERE k.seconds IS NOT NULL
    UNION SELECT 60 * (1 << n) FROM generate_series(0, 20) n
    WHERE n = 0 OR 60 * (1 << n) <= (SELECT max(k.seconds) FROM kept k)
  )
  SELECT a.age, coalesce(t.seq, 0) FROM age a LEFT JOIN realtime.trimming t ON t.age = a.age ORDER BY a.age
$$;
--> statement-breakpoint
-- Keeps how far the log was looked through, for a relay that leads later.
CREATE FUNCTION realtime.trimmed(ages integer[], seqs bigint[]) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM realtime.trimming t WHERE t.age <> ALL (ages);
  INSERT INTO realtime.trimming AS t (age, seq) SELECT u.age, u.seq FROM unnest(ages, seqs) u (age, seq)
  ON CONFLICT (age) DO UPDATE SET seq = excluded.seq WHERE t.seq <> excluded.seq
$$;
--> statement-breakpoint
-- Looks at publications that are `age` seconds old, `examine_max` after `after` at most, in the order of the log, and
-- deletes those past their channel's age or size. Answers how many it deleted; up to where it looked; whether nothing
-- older is left; and for how many milliseconds the next one that it has not looked at was due.
--
-- It takes no part in the fence: who appends does not wait. It waits for nobody either, so that two who wait for each
-- other cannot be: it fails, and is called again later.
CREATE FUNCTION realtime.trim(
  age integer, after bigint, examine_max integer,
  OUT deleted bigint, OUT next bigint, OUT is_done boolean, OUT due_ms bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET lock_timeout = '100ms'
AS $$
#variable_conflict use_column
DECLARE
  now_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
  places tid[];
  emptied text[];
  tops bigint[];
  last_uses bigint[];
  next_at bigint;
BEGIN
  WITH looked AS MATERIALIZED (
    SELECT q.ctid AS place, q.seq, q.channel, q."offset", q.at, min(q.seq) FILTER (WHERE q.at >= now_ms - trim.age * 1000::bigint) OVER () AS young
    FROM (
      SELECT p.ctid, p.* FROM realtime.publications p WHERE p.seq > trim.after ORDER BY p.seq LIMIT examine_max
    ) q
  ), due AS MATERIALIZED (
    SELECT * FROM looked l WHERE l.young IS NULL OR l.seq < l.young
  ), head AS MATERIALIZED (
    SELECT d.channel, c.history_seconds, c.history_size, greatest(c."offset", (
        SELECT p."offset" FROM realtime.publications p WHERE p.channel = d.channel ORDER BY p."offset" DESC LIMIT 1
      )) AS top
    FROM (SELECT DISTINCT due.channel FROM due) d CROSS JOIN LATERAL (
      SELECT * FROM realtime.channels c WHERE c.channel = d.channel LIMIT 1
    ) c
  ), past AS MATERIALIZED (
    SELECT d.place, d.channel, d."offset", d.at, h.top
    FROM due d JOIN head h ON h.channel = d.channel
    WHERE d.at < now_ms - 60000
      AND (d.at < now_ms - h.history_seconds * 1000::bigint - 60000 OR d."offset" <= h.top - h.history_size)
  ), ended AS (
    SELECT p.channel, p."offset" AS top, p.at FROM past p WHERE p."offset" = p.top ORDER BY p.channel
  )
  SELECT (SELECT array_agg(p.place) FROM past p), (SELECT array_agg(e.channel) FROM ended e),
    (SELECT array_agg(e.top) FROM ended e), (SELECT array_agg(e.at) FROM ended e),
    coalesce(min(l.young) - 1, max(l.seq), trim.after), count(*) < examine_max OR min(l.young) IS NOT NULL,
    min(l.at) FILTER (WHERE l.seq = l.young)
  INTO places, emptied, tops, last_uses, next, is_done, next_at
  FROM looked l;

  IF emptied IS NOT NULL THEN
    -- The head's own publication goes: what it stood for has to stay.
    PERFORM 1 FROM realtime.channels c WHERE c.channel = ANY (emptied) ORDER BY c.channel FOR UPDATE;
    UPDATE realtime.channels c SET "offset" = greatest(c."offset", u.top), used_at = greatest(c.used_at, u.at)
    FROM unnest(emptied, tops, last_uses) u (channel, top, at) WHERE c.channel = u.channel;
  END IF;
  DELETE FROM realtime.publications p WHERE p.ctid = ANY (places);
  GET DIAGNOSTICS deleted = ROW_COUNT;
  IF NOT is_done THEN
    SELECT p.at INTO next_at FROM realtime.publications p WHERE p.seq > next ORDER BY p.seq LIMIT 1;
  END IF;
  due_ms := greatest(0, now_ms - trim.age * 1000::bigint - next_at);
END;
$$;
--> statement-breakpoint
-- Forgets channels that have no publication any more and had none for `seconds`; looks at `examine_max` of them after
-- `after`, in the order of their names, without the fence. Answers how many it forgot, and where to go on; NULL at the end.
-- The fence is held for as long as it takes to delete `delete_max` of them, which are all that one call forgets.
--
-- A forgotten channel that comes back counts from 1 in another epoch, see realtime.first_epoch. Once that keeps more than
-- `kept_max` rows the log itself gets another epoch, which all begin in that have no row: then none of those is needed.
CREATE FUNCTION realtime.forget(
  seconds bigint, after text, examine_max integer, delete_max integer, kept_max integer, OUT forgotten bigint, OUT next text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  idle text[];
  used_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000) - seconds * 1000;
  log_epoch text;
BEGIN
  SELECT array_agg(x.channel ORDER BY x.channel) FILTER (WHERE x.is_idle), CASE WHEN count(*) = examine_max THEN max(x.channel) END
  INTO idle, next
  FROM (
    SELECT c.channel, c.used_at < used_ms AND NOT EXISTS (
      SELECT FROM realtime.publications p WHERE p.channel = c.channel
    ) AS is_idle
    FROM realtime.channels c WHERE c.channel > forget.after ORDER BY c.channel LIMIT examine_max
  ) x;
  IF cardinality(idle) > delete_max THEN
    idle := idle[1:delete_max];
    next := idle[delete_max];
  END IF;
  forgotten := 0;
  IF idle IS NOT NULL THEN
    SELECT l.epoch INTO log_epoch FROM realtime.log l FOR UPDATE;
    IF pg_stat_get_live_tuples('realtime.forgotten'::regclass) > kept_max THEN
      UPDATE realtime.log l SET epoch = realtime.new_epoch(l.epoch),
        signature = realtime.signature(pg_current_xact_id()::text::bigint & 4294967295)
      RETURNING l.epoch INTO log_epoch;
    END IF;
    WITH gone AS (
      -- Those that got a publication meanwhile stay.
      DELETE FROM realtime.channels c WHERE c.channel = ANY (idle) AND NOT EXISTS (
        SELECT FROM realtime.publications p WHERE p.channel = c.channel
      )
      RETURNING c.channel, c.epoch
    ), noted AS (
      -- One of an earlier epoch begins in another one anyway.
      INSERT INTO realtime.forgotten AS f (hash, epoch, times)
      SELECT DISTINCT hashtext(g.channel), log_epoch, 1 FROM gone g
      WHERE g.epoch = realtime.first_epoch(g.channel, log_epoch)
      ON CONFLICT (hash) DO UPDATE SET epoch = excluded.epoch,
        times = CASE WHEN f.epoch = excluded.epoch THEN f.times + 1 ELSE 1 END
    )
    SELECT count(*) INTO forgotten FROM gone;
  END IF;
END;
$$;
--> statement-breakpoint
-- Deletes what is kept of channels that were forgotten in an earlier epoch of the log, `delete_max` at most; answers how many.
CREATE FUNCTION realtime.forget_forgotten(delete_max integer) RETURNS bigint
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH gone AS (
    DELETE FROM realtime.forgotten f WHERE f.ctid = ANY (ARRAY(
      SELECT o.ctid FROM realtime.forgotten o, realtime.log l WHERE o.epoch <> l.epoch LIMIT delete_max
    )) RETURNING 1
  )
  SELECT count(*) FROM gone
$$;
