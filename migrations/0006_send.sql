-- What applications call and attach themselves: realtime.send, and public.notify_realtime_event.

-- Whether a text is the name of a channel that others than the server publish to.
CREATE FUNCTION realtime.is_channel(name text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN coalesce(length(name) <= 256 AND name COLLATE "C" ~ '^([A-Za-z0-9_.:@/-]|%[0-9A-Fa-f]{2})+$', false);
END;
$$;
--> statement-breakpoint
-- Publishes when, and only when, the caller's transaction commits.
CREATE FUNCTION realtime.send(channel text, data jsonb, key text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  marks text;
BEGIN
  IF NOT realtime.is_channel(channel) THEN
    RAISE EXCEPTION 'realtime.send: % is not a channel', quote_nullable(left(channel, 300))
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'A channel is 1 to 256 characters of A-Z a-z 0-9 _ . : - @ / and %XX; realtime.part(value) writes any value so.';
  ELSIF data IS NULL THEN
    RAISE EXCEPTION 'realtime.send: data is NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'JSON null is ''null''.';
  ELSIF length(key) NOT BETWEEN 1 AND 64 THEN
    RAISE EXCEPTION 'realtime.send: a key has 1 to 64 characters' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO realtime.outbox (xid, lsn, channel, data, key)
  VALUES (pg_current_xact_id(), pg_current_wal_insert_lsn(), send.channel, send.data::text, send.key);
  -- A statement after this one is not the first of its transaction, see realtime.mark.
  IF (current_setting('sobranie.marks', true) <> '') IS NOT TRUE THEN
    marks := set_config('sobranie.marks', ' ', true);
  END IF;
  PERFORM realtime.ring();
END;
$$;
--> statement-breakpoint
-- The statement that prints the rows of one event of a row trigger: $1 the new row, $2 the old one. It answers whether it
-- is right for their types, the new row, what is shown of the old one, and the subject.
CREATE FUNCTION realtime.row_statement(target oid, operation text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  watch realtime.watched;
  sides text[] := CASE operation WHEN 'INSERT' THEN '{n}' WHEN 'DELETE' THEN '{o}' ELSE '{n,o}' END::text[];
BEGIN
  watch.number := target;
  watch.target := target;
  watch.numbers := 'json';
  RETURN format(
    'SELECT %s AS is_right, %s AS new_row, %s AS old_row, %s AS subject FROM (SELECT * FROM %s) q%s',
    realtime.capture_types(watch, CASE operation WHEN 'DELETE' THEN '(SELECT ($2).*)' ELSE '(SELECT ($1).*)' END),
    CASE operation WHEN 'DELETE' THEN 'NULL::text' ELSE 'row_to_json(n_row.*)::text' END,
    CASE operation WHEN 'INSERT' THEN 'NULL::text' WHEN 'DELETE' THEN 'row_to_json(o_row.*)::text'
      ELSE realtime.capture_changes(watch) END,
    realtime.capture_subject(watch, sides),
    (SELECT string_agg(format('(SELECT %s) %s', realtime.capture_side(
      watch, u.side, CASE u.side WHEN 'n' THEN '(SELECT ($1).*)' ELSE '(SELECT ($2).*)' END), u.side), ' CROSS JOIN ' ORDER BY u.side)
      FROM unnest(sides) u (side)),
    (SELECT string_agg(realtime.capture_row(watch, u.side), '' ORDER BY u.side) FROM unnest(sides) u (side))
  );
END;
$$;
--> statement-breakpoint
-- What a change is found by in realtime.row_changes: its keys, and the version of the row that it replaced.
CREATE FUNCTION realtime.row_hashes(subject text[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN ARRAY(
    SELECT DISTINCT hashtextextended((subject[1] || ' ' || u.name) COLLATE "C", 0)
    FROM unnest(subject[2:4]) u (name) WHERE u.name IS NOT NULL
  );
END;
$$;
--> statement-breakpoint
-- Puts the row that a trigger has just captured, at `began`, before what nested statements did to the same row afterwards. A
-- row trigger knows no beginning of its statement, so the versions of the row have to tell: each was made once. Whoever
-- replaced the version that this change made came later. So did whoever took the key that it gave up, after the version that
-- this change replaced was made. What came after these came later, too.
--
-- It is called for each row, so it steps through the changes of that row alone, which an index has in order: a statement
-- of many rows costs each of them the same.
--
-- Under SERIALIZABLE the relay does it, as in realtime.reorder: then `own`, the subject, is not known.
CREATE FUNCTION realtime.reorder_row(xid xid8, began pg_lsn, own text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
-- By the index always, of whose order the first is asked: the statistics of a queue say nothing.
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_indexscan = on
SET enable_mergejoin = off
SET enable_nestloop = on
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  -- Without a key, only versions tell one row from another.
  has_key boolean;
  place pg_lsn;
  subject text[];
  first_lsn pg_lsn;
  is_replaced boolean;
  is_guess boolean := false;
  -- Those that share a key with this row or with one of these, from the first that came later on.
  keys text[];
  hashes bigint[];
  next_hashes bigint[];
  met_rows pg_lsn[];
  met text[];
  makers integer[] := '{}';
  -- Of those that came later: what they made, and the keys that they gave up.
  versions text[];
  freed text[];
  sooner_rows pg_lsn[] := '{}';
  later_rows pg_lsn[] := '{}';
  old_rows pg_lsn[];
  new_rows pg_lsn[];
  row_places tid[];
  change_places tid[];
  change_rows pg_lsn[];
BEGIN
  IF own IS NOT NULL THEN
    IF current_setting('transaction_isolation') = 'serializable' THEN
      INSERT INTO realtime.unordered (xid, ended, began)
      VALUES (reorder_row.xid, pg_current_wal_insert_lsn(), reorder_row.began);
      RETURN;
    END IF;
  ELSE
    own := (SELECT o.subject FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = began);
  END IF;
  has_key := num_nonnulls(VARIADIC own[2:3]) > 0;

  -- Who replaced the version that this change made. A place comes again after a TRUNCATE, with another command.
  IF own[5] IS NOT NULL THEN
    first_lsn := (
      SELECT min(c.lsn) FROM realtime.row_changes c
      WHERE c.xid = reorder_row.xid AND c.key = hashtextextended((own[1] || ' ' || own[5]) COLLATE "C", 0) AND c.lsn < began
        AND (SELECT o.subject[1] = own[1] AND o.subject[4] = own[5] AND o.subject[6] = own[7]
          FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = c.lsn)
    );
  END IF;
  -- Who took the key that it gave up: backwards, until the version that it replaced was made. An outer statement may have
  -- made that, and is not captured yet. Then what was captured before this statement began came before it. A version that
  -- nobody has replaced tells the command of this statement; without one there is a doubt.
  is_replaced := first_lsn IS NOT NULL;
  IF own[2] <> own[3] OR (own[2] IS NOT NULL AND own[3] IS NULL) THEN
    place := began;
    LOOP
      place := (
        SELECT c.lsn FROM realtime.row_changes c
        WHERE c.xid = reorder_row.xid AND c.key = hashtextextended((own[1] || ' ' || own[2]) COLLATE "C", 0) AND c.lsn < place
        ORDER BY c.lsn DESC LIMIT 1
      );
      EXIT WHEN place IS NULL;
      subject := (SELECT o.subject FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = place);
      CONTINUE WHEN (subject[1] = own[1] AND own[2] = ANY (subject[2:3])) IS NOT true;
      IF subject[5] = own[4] THEN
        is_guess := false;
        EXIT;
      END IF;
      CONTINUE WHEN (subject[3] = own[2] AND subject[2] IS DISTINCT FROM own[2]) IS NOT true;
      IF own[9] = 'new' THEN
        EXIT WHEN NOT is_replaced AND subject[8]::bigint < own[7]::bigint;
        is_guess := is_replaced OR own[7] IS NULL;
      END IF;
      first_lsn := least(first_lsn, place);
    END LOOP;
    IF is_guess THEN
      INSERT INTO realtime.outbox (xid, lsn, channel, fault)
      SELECT reorder_row.xid, pg_current_wal_insert_lsn(), o.channel,
        'nested statements gave a key to several rows, and nothing shows in which order'
      FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = began;
    END IF;
  END IF;
  IF first_lsn IS NULL THEN
    RETURN;
  END IF;

  -- Forwards, with whatever shares a key with one of these. One that comes with another key may have followed one that was
  -- passed: then again.
  keys := own[2:3];
  hashes := realtime.row_hashes(CASE WHEN has_key THEN own[1:3] ELSE ARRAY[own[1], own[5]] END);
  LOOP
    next_hashes := hashes;
    met_rows := '{}';
    met := '{}';
    place := first_lsn;
    LOOP
      subject := (SELECT o.subject FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = place);
      IF subject[1] = own[1] AND (NOT has_key OR subject[2:3] && keys) THEN
        met_rows := met_rows || place;
        met := met || ARRAY[subject[1:5]];
        IF NOT has_key THEN
          hashes := realtime.row_hashes(ARRAY[own[1], subject[5]]);
        ELSIF NOT array_remove(subject[2:3], NULL) <@ keys THEN
          keys := keys || subject[2:3];
          hashes := hashes || realtime.row_hashes(subject[1:3]);
        END IF;
      END IF;
      place := (
        SELECT min(m.lsn) FROM (SELECT DISTINCT u FROM unnest(hashes) u) h (hash) CROSS JOIN LATERAL (
          SELECT c.lsn FROM realtime.row_changes c
          WHERE c.xid = reorder_row.xid AND c.key = h.hash AND c.lsn > place AND c.lsn < began ORDER BY c.lsn LIMIT 1
        ) m
      );
      EXIT WHEN place IS NULL;
    END LOOP;
    EXIT WHEN NOT has_key OR hashes <@ next_hashes;
  END LOOP;

  -- What made the version that this change replaced came before it. A nested change may have passed it: what it replaced was
  -- not captured then.
  versions := own[4:4];
  FOR i IN REVERSE cardinality(met_rows)..1 LOOP
    IF met[i][5] = ANY (versions) THEN
      makers := makers || i;
      versions := versions || met[i][4];
    END IF;
  END LOOP;
  versions := own[5:5];
  freed := CASE WHEN own[2] IS DISTINCT FROM own[3] THEN own[2:2] END;
  FOR i IN 1..cardinality(met_rows) LOOP
    IF i <> ALL (makers) AND (met[i][4] = ANY (versions)
      OR (met[i][3] = ANY (freed) AND met[i][2] IS DISTINCT FROM met[i][3])) THEN
      later_rows := later_rows || met_rows[i];
      versions := versions || met[i][5];
      freed := freed || CASE WHEN met[i][2] IS DISTINCT FROM met[i][3] THEN ARRAY[met[i][2]] END;
    ELSE
      sooner_rows := sooner_rows || met_rows[i];
    END IF;
  END LOOP;

  -- They change places with one another. The rows are looked up one by one: for a join, the planner may read all that the
  -- transaction wrote.
  old_rows := sooner_rows || began || later_rows;
  new_rows := ARRAY(SELECT u FROM unnest(old_rows) u ORDER BY u);
  row_places := ARRAY(
    SELECT (SELECT o.ctid FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = u.lsn)
    FROM unnest(old_rows) WITH ORDINALITY u (lsn, n) ORDER BY u.n
  );
  SELECT array_agg(c.place), array_agg(u.new_lsn) INTO change_places, change_rows
  FROM unnest(old_rows, new_rows) u (old_lsn, new_lsn)
  CROSS JOIN LATERAL (
    SELECT o.subject FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = u.old_lsn OFFSET 0
  ) o
  CROSS JOIN LATERAL unnest(realtime.row_hashes(o.subject)) h (hash)
  CROSS JOIN LATERAL (
    SELECT c.ctid AS place FROM realtime.row_changes c
    WHERE c.xid = reorder_row.xid AND c.key = h.hash AND c.lsn = u.old_lsn OFFSET 0
  ) c
  WHERE u.new_lsn <> u.old_lsn;
  UPDATE realtime.outbox o SET lsn = m.lsn
  FROM unnest(row_places, new_rows) m (place, lsn) WHERE o.ctid = ANY (row_places) AND o.ctid = m.place AND o.lsn <> m.lsn;
  UPDATE realtime.row_changes c SET lsn = m.lsn
  FROM unnest(change_places, change_rows) m (place, lsn) WHERE c.ctid = ANY (change_places) AND c.ctid = m.place;
END;
$$;
--> statement-breakpoint
-- What an UPDATE shows of the old row, both rows as JSON: as realtime.capture_changes. For rows without values that are JSON
-- themselves: what is in these must not be looked into.
CREATE FUNCTION realtime.row_changed(old_row text, new_row text, keys text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  changed record;
BEGIN
  IF keys IS NULL THEN
    RETURN old_row;
  END IF;
  SELECT count(*) FILTER (WHERE e.name = ANY (keys)) AS keys,
    string_agg(to_json(e.name)::text || ':' || e.old_value::text, ',' ORDER BY e.n) AS members
  INTO changed
  FROM ROWS FROM (json_each(old_row::json), json_each(new_row::json)) WITH ORDINALITY e (name, old_value, new_name, new_value, n)
  WHERE e.name = ANY (keys) OR e.old_value::text <> e.new_value::text;
  IF changed.keys < cardinality(keys) THEN
    RAISE EXCEPTION 'the table was altered while a transaction that began before was open';
  END IF;
  RETURN '{' || changed.members || '}';
END;
$$;
--> statement-breakpoint
-- The key of such a row, as in realtime.capture_subject; NULL of NULL, and without a key.
CREATE FUNCTION realtime.row_key(printed text, keys text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  key record;
BEGIN
  SELECT count(*) AS keys, string_agg(e.value::text, ', ' ORDER BY e.n) AS members INTO key
  FROM json_each(printed::json) WITH ORDINALITY e (name, value, n) WHERE e.name = ANY (keys);
  IF printed IS NOT NULL AND key.keys < cardinality(keys) THEN
    RAISE EXCEPTION 'the table was altered while a transaction that began before was open';
  END IF;
  RETURN '[' || key.members || ']';
END;
$$;
--> statement-breakpoint
-- For triggers that users write themselves: AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW, or AFTER TRUNCATE. The
-- channel is the table's name. Whoever may attach it publishes to such a channel, so a role needs a grant for it.
-- realtime.watch is cheaper for the writer: this one runs once per row.
CREATE FUNCTION realtime.notify_realtime_event() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET array_nulls = on
SET bytea_output = hex
SET datestyle = 'ISO, MDY'
SET extra_float_digits = 1
SET intervalstyle = postgres
SET jit = off
SET lc_monetary = 'C'
SET quote_all_identifiers = off
SET timezone = 'UTC'
AS $$
#variable_conflict use_variable
DECLARE
  relation record;
  printed record;
  xid xid8 := pg_current_xact_id();
  began pg_lsn := pg_current_wal_insert_lsn();
  -- Whether other statements may have changed the row since it was written.
  is_nested boolean := pg_trigger_depth() > 1 OR coalesce(current_setting('sobranie.nested', true) = 'yes', false);
  keys text[];
  subject text[];
  place text;
  data text;
  fault text;
BEGIN
  IF TG_WHEN <> 'AFTER' OR NOT (TG_LEVEL = 'ROW' OR TG_OP = 'TRUNCATE') THEN
    RAISE EXCEPTION 'notify_realtime_event: trigger % on % must be AFTER ... FOR EACH ROW', TG_NAME, TG_RELID::regclass
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'AFTER TRUNCATE ... FOR EACH STATEMENT works too.';
  ELSIF to_regclass('realtime.outbox') IS NULL THEN
    -- The schema was dropped, and this function is all that is left.
    RETURN NULL;
  END IF;
  -- A partition's rows are changes of the table that it is part of. A snapshot may be older than the columns that it has:
  -- then its file is another one, or there is a column more than the snapshot knows of.
  SELECT c.relname::text AS name, n.nspname::text AS schema, c.relpersistence, EXISTS (
      SELECT FROM pg_attribute a
      WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND (a.atttypid >= 16384 OR a.attgenerated = 'v'
        OR (a.atttypid IN (114, 199) AND (is_nested OR TG_OP = 'UPDATE')))
    ) AS is_special,
    current_setting('transaction_isolation') = 'read committed' OR EXISTS (
      SELECT FROM pg_class o
      WHERE o.oid = TG_RELID AND o.relfilenode = pg_relation_filenode(TG_RELID)
        -- NULL where there is no such column. Before PostgreSQL 14, only for a role without that right on the table.
        AND has_column_privilege('pg_signal_backend', TG_RELID, (o.relnatts + 1)::smallint, 'REFERENCES') IS NULL
    ) AS is_known
  INTO relation
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid = coalesce(pg_partition_root(TG_RELID)::oid, TG_RELID);
  IF relation.relpersistence = 't' THEN
    RAISE EXCEPTION 'notify_realtime_event: % is a temporary table', relation.name USING ERRCODE = 'wrong_object_type';
  END IF;
  place := ',"schema":' || to_json(relation.schema)::text || ',"table":' || to_json(relation.name)::text || ',"data":';

  -- Nothing is written within, so this subtransaction takes no transaction id.
  BEGIN
    IF is_nested OR TG_OP = 'UPDATE' THEN
      keys := realtime.key_columns(TG_RELID);
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
      SELECT NULL::text AS new_row, NULL::text AS old_row INTO printed;
    ELSIF relation.is_known AND NOT relation.is_special THEN
      -- No value here has a type that others made. Where one is JSON as it was written, nothing has to look into the row. So
      -- the row is printed as it is, at a fifth of the price of a statement that is written for it.
      IF TG_OP = 'INSERT' THEN
        SELECT row_to_json(NEW)::text AS new_row, NULL::text AS old_row INTO printed;
      ELSIF TG_OP = 'UPDATE' THEN
        SELECT row_to_json(NEW)::text AS new_row, row_to_json(OLD)::text AS old_row INTO printed;
      ELSE
        SELECT NULL::text AS new_row, row_to_json(OLD)::text AS old_row INTO printed;
      END IF;
      IF is_nested THEN
        subject := ARRAY[TG_RELID::text, realtime.row_key(printed.old_row, keys), realtime.row_key(printed.new_row, keys)];
      END IF;
      IF TG_OP = 'UPDATE' THEN
        printed.old_row := realtime.row_changed(printed.old_row, printed.new_row, keys);
      END IF;
    ELSE
      IF TG_OP = 'INSERT' THEN
        EXECUTE realtime.row_statement(TG_RELID, TG_OP) INTO printed USING NEW, NEW;
      ELSIF TG_OP = 'UPDATE' THEN
        EXECUTE realtime.row_statement(TG_RELID, TG_OP) INTO printed USING NEW, OLD;
      ELSE
        EXECUTE realtime.row_statement(TG_RELID, TG_OP) INTO printed USING OLD, OLD;
      END IF;
      IF NOT printed.is_right THEN
        RAISE EXCEPTION 'the table was altered while a transaction that began before was open';
      END IF;
      IF is_nested THEN
        subject := printed.subject;
        -- There it has a name even in a table without a key.
        IF keys IS NULL THEN
          subject := ARRAY[subject[1], NULL, NULL];
        END IF;
      END IF;
    END IF;
    IF subject IS NOT NULL THEN
      -- The versions themselves: what looks the same may be another one. Their places, which a foreign table has not, and the
      -- commands that made or replaced what is there now.
      subject := subject[1:3] || ARRAY[
        CASE WHEN TG_OP <> 'INSERT' THEN nullif(OLD.ctid::text, '(4294967295,0)') END,
        CASE WHEN TG_OP <> 'DELETE' THEN nullif(NEW.ctid::text, '(4294967295,0)') END,
        CASE WHEN TG_OP <> 'INSERT' THEN OLD.cmin::text END,
        CASE WHEN TG_OP <> 'DELETE' THEN NEW.cmin::text END
      ];
      IF TG_OP <> 'INSERT' THEN
        -- Whether this transaction has made the version that it replaced; xids go in a circle.
        subject[9] := CASE WHEN (OLD.xmin::text::bigint - xid::text::bigint) & 4294967295 < 2147483648 THEN 'new' END;
      END IF;
    END IF;
    data := '{"action":"' || TG_OP || '"' || place || coalesce(printed.new_row, 'null')
      || ',"old":' || coalesce(printed.old_row, 'null') || '}';
  EXCEPTION WHEN OTHERS THEN
    fault := left(SQLERRM, 500);
  END;
  IF subject IS NOT NULL THEN
    -- Beside it, the command by which it is captured.
    WITH added AS (
      INSERT INTO realtime.row_changes AS r (xid, key, lsn)
      SELECT xid, h, began FROM unnest(realtime.row_hashes(subject)) h RETURNING r.cmin::text AS command
    )
    SELECT max(a.command) INTO place FROM added a;
    subject[8] := place;
  END IF;
  INSERT INTO realtime.outbox (xid, lsn, subject, channel, data, fault)
  VALUES (xid, began, subject, coalesce(realtime.part(relation.name), ''), data, fault);

  IF pg_trigger_depth() > 1 THEN
    place := set_config('sobranie.nested', 'yes', true);
  END IF;
  -- As realtime.send.
  IF (current_setting('sobranie.marks', true) <> '') IS NOT TRUE THEN
    place := set_config('sobranie.marks', ' ', true);
  END IF;
  IF subject IS NOT NULL THEN
    PERFORM realtime.reorder_row(xid, began, subject);
  END IF;
  PERFORM realtime.ring();
  RETURN NULL;
END;
$$;
--> statement-breakpoint
-- It belongs into the schema public, where there is one and this role may add to it. A trigger that has it already keeps it.
DO $$
BEGIN
  IF to_regnamespace('public') IS NOT NULL AND has_schema_privilege('public', 'CREATE') THEN
    EXECUTE replace(pg_get_functiondef('realtime.notify_realtime_event()'::regprocedure),
      'FUNCTION realtime.notify_realtime_event()', 'FUNCTION public.notify_realtime_event()');
    DROP FUNCTION realtime.notify_realtime_event();
  END IF;
END;
$$;
