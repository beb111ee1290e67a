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
-- Puts the row that a trigger has just captured, at `began`, before what nested statements did to the same row afterwards. A
-- row trigger knows no beginning of its statement, so the versions of the row have to tell: their places, which come
-- once in a transaction. Whoever replaced the version that this change made came later. So did whoever took the key that
-- it gave up, unless the version that it replaced was made by a change in between.
--
-- Under SERIALIZABLE the relay does it, as in realtime.reorder.
CREATE FUNCTION realtime.reorder_row(xid xid8, began pg_lsn, is_relay boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own text[];
  keys text[];
  first_lsn pg_lsn;
  later_rows pg_lsn[] := '{}';
  later record;
BEGIN
  IF NOT is_relay AND current_setting('transaction_isolation') = 'serializable' THEN
    INSERT INTO realtime.unordered (xid, ended, began) VALUES (reorder_row.xid, pg_current_wal_insert_lsn(), reorder_row.began);
    RETURN;
  END IF;
  own := (SELECT o.subject FROM realtime.outbox o WHERE o.xid = reorder_row.xid AND o.lsn = began);
  keys := own[2:3];
  WITH related AS (
    SELECT n.lsn, n.subject, bool_or(n.subject[6]::integer <= own[6]::integer) OVER (ORDER BY n.lsn DESC) AS is_outside
    FROM realtime.outbox n
    WHERE n.xid = reorder_row.xid AND n.lsn < began AND n.subject[1] = own[1] AND n.subject[2:3] && keys
  ), nested AS (
    SELECT r.lsn, r.subject, max(r.lsn) FILTER (WHERE r.subject[5] = own[4]) OVER () AS replaced
    FROM related r WHERE NOT r.is_outside
  )
  SELECT min(n.lsn) INTO first_lsn FROM nested n
  WHERE n.subject[4] = own[5]
    OR (own[2] <> own[3] IS NOT false AND own[2] = ANY (n.subject[2:3]) AND (n.lsn <= n.replaced) IS NOT true);
  IF first_lsn IS NULL THEN
    RETURN;
  END IF;
  FOR later IN
    SELECT n.lsn, n.subject FROM realtime.outbox n
    WHERE n.xid = reorder_row.xid AND n.lsn >= first_lsn AND n.lsn < began AND n.subject[1] = own[1] ORDER BY n.lsn
  LOOP
    IF later.subject[2:3] && keys THEN
      keys := keys || later.subject[2:3];
      later_rows := later_rows || later.lsn;
    END IF;
  END LOOP;
  -- It takes the place of the first of them, and each of them that of the next.
  later_rows := later_rows || began;
  UPDATE realtime.outbox n SET lsn = CASE WHEN n.lsn = began THEN later_rows[1]
    ELSE later_rows[array_position(later_rows, n.lsn) + 1] END
  WHERE n.xid = reorder_row.xid AND n.lsn = ANY (later_rows);
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
  -- A partition's rows are changes of the table that it is part of.
  SELECT c.relname::text AS name, n.nspname::text AS schema, c.relpersistence, EXISTS (
      SELECT FROM pg_attribute a
      WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND (a.atttypid >= 16384 OR a.attgenerated = 'v')
    ) AS is_special
  INTO relation
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid = coalesce(pg_partition_root(TG_RELID)::oid, TG_RELID);
  IF relation.relpersistence = 't' THEN
    RAISE EXCEPTION 'notify_realtime_event: % is a temporary table', relation.name USING ERRCODE = 'wrong_object_type';
  END IF;
  place := ',"schema":' || to_json(relation.schema)::text || ',"table":' || to_json(relation.name)::text || ',"data":';

  -- Nothing is written within, so this subtransaction takes no transaction id.
  BEGIN
    IF TG_OP = 'TRUNCATE' THEN
      SELECT NULL::text AS new_row, NULL::text AS old_row INTO printed;
    ELSIF TG_OP <> 'UPDATE' AND NOT relation.is_special AND pg_trigger_depth() = 1
      AND current_setting('sobranie.nested', true) IS DISTINCT FROM 'yes'
      AND current_setting('transaction_isolation') = 'read committed' THEN
      IF TG_OP = 'INSERT' THEN
        SELECT row_to_json(NEW)::text AS new_row, NULL::text AS old_row INTO printed;
      ELSE
        SELECT NULL::text AS new_row, row_to_json(OLD)::text AS old_row INTO printed;
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
      IF pg_trigger_depth() > 1 OR current_setting('sobranie.nested', true) = 'yes' THEN
        subject := printed.subject;
        -- The versions themselves: what looks the same may be another one.
        subject[4] := CASE WHEN TG_OP <> 'INSERT' THEN OLD.ctid::text END;
        subject[5] := CASE WHEN TG_OP <> 'DELETE' THEN NEW.ctid::text END;
      END IF;
    END IF;
    data := '{"action":"' || TG_OP || '"' || place || coalesce(printed.new_row, 'null')
      || ',"old":' || coalesce(printed.old_row, 'null') || '}';
  EXCEPTION WHEN OTHERS THEN
    fault := left(SQLERRM, 500);
  END;
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
    PERFORM realtime.reorder_row(xid, began);
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
