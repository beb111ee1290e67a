-- Watches: realtime.watch and unwatch, and what keeps their trigger functions right.
--
-- Rights. watch and unwatch run as their caller: only a table's owner may put triggers on it, and the policy below lets a
-- role write the watches of its own tables alone, if it may call watch. What has to run as the owner of this schema is done
-- by triggers of realtime.watched. Whoever may watch publishes what it likes to any channel, as with realtime.send.

-- Whether the current role owns a table, directly or as a member of its owner.
CREATE FUNCTION realtime.is_owner(target regclass) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce((SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = target), false)
$$;
--> statement-breakpoint
-- Templates that name columns which are gone: they make no channel any more.
CREATE FUNCTION realtime.broken_templates(watch realtime.watched) RETURNS TABLE (template text, name text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT c.channel, p.part
  FROM unnest(watch.channels) c (channel)
  CROSS JOIN LATERAL unnest(realtime.template_parts(c.channel)) WITH ORDINALITY p (part, n)
  WHERE p.n % 2 = 0 AND NOT EXISTS (SELECT FROM realtime.captured_columns(watch) d WHERE d.name = p.part)
$$;
--> statement-breakpoint
-- Whether a partition has a column in another place than its table.
CREATE FUNCTION realtime.has_other_places(target oid) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH RECURSIVE within AS (
    SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = target AND c.relkind = 'p'
    UNION ALL
    SELECT c.oid, c.relkind
    FROM within w JOIN pg_inherits i ON i.inhparent = w.oid JOIN pg_class c ON c.oid = i.inhrelid WHERE w.relkind = 'p'
  )
  SELECT EXISTS (
    SELECT FROM within w JOIN pg_attribute p ON p.attrelid = w.oid AND p.attnum > 0 AND NOT p.attisdropped
    JOIN pg_attribute a ON a.attrelid = target AND a.attname = p.attname AND a.attnum > 0 AND a.attnum <> p.attnum
  )
$$;
--> statement-breakpoint
-- What of a watch cannot be captured as its table is now; NULL: nothing.
CREATE FUNCTION realtime.watch_fault(watch realtime.watched) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT nullif(concat_ws('; ',
    (
      SELECT string_agg(format('the channel template "%s" names column "%s", which is gone', b.template, b.name), '; ')
      FROM realtime.broken_templates(watch) b
    ), (
      SELECT string_agg(format('column "%s" is gone', u.name), '; ')
      FROM unnest(watch.columns) u (name)
      WHERE NOT EXISTS (SELECT FROM realtime.captured_columns(watch) d WHERE d.name = u.name)
    ), (
      SELECT string_agg(format('column "%s" is computed by functions that are not PostgreSQL''s', a.attname), '; ')
      FROM pg_attribute a
      WHERE a.attrelid = watch.target AND a.attgenerated = 'v' AND NOT a.attisdropped
        AND NOT realtime.is_computable(a.attrelid, a.attnum)
    ), (
      -- The server shows a row that was inserted there as it was before they were computed.
      SELECT string_agg(DISTINCT format('column "%s" is computed by functions that are not PostgreSQL''s, and a partition has its columns'
        ' in other places', a.attname), '; ')
      FROM pg_attribute a
      WHERE a.attrelid = watch.target AND a.attgenerated = 's' AND NOT a.attisdropped
        AND NOT realtime.is_computable(a.attrelid, a.attnum) AND realtime.has_other_places(watch.target)
    ), (
      SELECT string_agg(format('%s is a foreign table', f.relation), '; ')
      FROM realtime.foreign_partitions(watch.target) f (relation)
    ), (
      SELECT 'it has more than 800 columns' WHERE realtime.is_too_wide(watch.target)
    ), (
      SELECT format('%s inherits from it', min(i.inhrelid::regclass::text))
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = watch.target AND NOT c.relispartition HAVING count(*) > 0
    )
  ), '')
$$;
--> statement-breakpoint
-- Refuses what cannot be watched, in words.
CREATE FUNCTION realtime.check_watch(watch realtime.watched) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  name text;
  template text;
BEGIN
  IF coalesce(cardinality(watch.channels), 0) NOT BETWEEN 1 AND 32 THEN
    RAISE EXCEPTION 'realtime.watch: 1 to 32 channel templates are needed, % given', coalesce(cardinality(watch.channels), 0)
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF cardinality(watch.channels) > (SELECT count(DISTINCT c) FROM unnest(watch.channels) c WHERE c IS NOT NULL) THEN
    RAISE EXCEPTION 'realtime.watch: a channel template is NULL or given twice'
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF cardinality(watch.columns) = 0
    OR cardinality(watch.columns) > (SELECT count(DISTINCT c) FROM unnest(watch.columns) c) THEN
    RAISE EXCEPTION 'realtime.watch: the list of columns is empty, or names one twice or NULL'
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF watch.numbers NOT IN ('json', 'text') OR watch.numbers IS NULL THEN
    RAISE EXCEPTION 'realtime.watch: numbers are sent as ''json'' or as ''text'', not as %', quote_nullable(watch.numbers)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR template, name IN SELECT b.template, b.name FROM realtime.broken_templates(watch) b LOOP
    RAISE EXCEPTION 'realtime.watch: channel template "%" names column "%", which % does not have', template, name,
      watch.target USING ERRCODE = 'undefined_column';
  END LOOP;
  FOR name IN
    SELECT u.name FROM unnest(watch.columns) u (name)
    WHERE NOT EXISTS (SELECT FROM realtime.captured_columns(watch) c WHERE c.name = u.name)
  LOOP
    RAISE EXCEPTION 'realtime.watch: the list of columns names column "%", which % does not have', name, watch.target
      USING ERRCODE = 'undefined_column';
  END LOOP;
  name := realtime.watch_fault(watch);
  IF name IS NOT NULL THEN
    RAISE EXCEPTION 'realtime.watch: % cannot be watched: %', watch.target, name USING ERRCODE = 'wrong_object_type';
  END IF;
END;
$$;
--> statement-breakpoint
-- Before a watch is written: numbers it, checks it, writes its trigger function. An ended watch, whose triggers could not be
-- dropped, has no channels.
CREATE FUNCTION realtime.on_watched() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM realtime.watched w WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.target);
  IF TG_OP = 'INSERT' THEN
    NEW.number := coalesce((SELECT max(w.number) FROM realtime.watched w), 0) + 1;
    NEW.since := now();
  ELSE
    NEW.number := OLD.number;
    NEW.target := OLD.target;
  END IF;
  IF cardinality(NEW.channels) > 0 OR TG_OP = 'INSERT' THEN
    PERFORM realtime.check_watch(NEW);
  END IF;
  NEW.fault := NULL;
  NEW.shape := realtime.shape(NEW.target);
  PERFORM realtime.define_capture(NEW);
  RETURN NEW;
END;
$$;
--> statement-breakpoint
CREATE TRIGGER on_watched BEFORE INSERT OR UPDATE OF channels, columns, numbers, target, number ON realtime.watched
FOR EACH ROW EXECUTE FUNCTION realtime.on_watched();
--> statement-breakpoint
-- After a watch is deleted: its trigger function goes, which its triggers do not have any more.
CREATE FUNCTION realtime.on_unwatched() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_trigger t WHERE t.tgfoid = to_regprocedure(format('realtime.capture_%s()', OLD.number))
  ) THEN
    -- Somebody's own trigger: it keeps a function that does nothing.
    OLD.channels := '{}';
    PERFORM realtime.define_capture(OLD);
  ELSE
    EXECUTE format('DROP FUNCTION IF EXISTS realtime.capture_%s()', OLD.number);
  END IF;
  DELETE FROM realtime.faults f WHERE f.watch = OLD.number;
  RETURN NULL;
END;
$$;
--> statement-breakpoint
CREATE TRIGGER on_unwatched AFTER DELETE ON realtime.watched FOR EACH ROW EXECUTE FUNCTION realtime.on_unwatched();
--> statement-breakpoint
-- The triggers of a watch: their names, and what comes after CREATE TRIGGER <name>. The mark has the last name, so that what
-- other triggers change before the statement begins is not taken for a part of it.
--
-- A row that MERGE moves to another partition is in no transition table of its UPDATE. Row triggers see it: one is deleted
-- in a statement that is no DELETE, or inserted in one that is no INSERT. They come first, before other triggers change
-- the row again. For any other row the condition costs little, and is false. Their names are those of one watch alone: a
-- partition gets copies of them, and may have been a watched table of its own before it was attached.
CREATE FUNCTION realtime.watch_triggers(number integer, target regclass) RETURNS TABLE (name text, definition text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.name, concat(format(t.event, target), ' FOR EACH ', t.level, ' EXECUTE FUNCTION realtime.',
    CASE WHEN t.name LIKE 'zz%' THEN format('mark(%L)', number) ELSE format('capture_%s()', number) END)
  FROM (VALUES
    ('realtime_insert', 'AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows', 'STATEMENT'),
    ('realtime_update', 'AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows', 'STATEMENT'),
    ('realtime_delete', 'AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows', 'STATEMENT'),
    ('realtime_truncate', 'AFTER TRUNCATE ON %s', 'STATEMENT'),
    (format('!realtime_moved_out_%s', number), 'AFTER DELETE ON %s', $w$ROW
      WHEN (rtrim(current_setting('sobranie.marks', true), ' !') NOT LIKE '%DELETE')$w$),
    (format('!realtime_moved_in_%s', number), 'AFTER INSERT ON %s', $w$ROW
      WHEN (rtrim(current_setting('sobranie.marks', true), ' !') NOT LIKE '%INSERT')$w$),
    ('zz_realtime_mark', 'BEFORE INSERT OR UPDATE OR DELETE ON %s', 'STATEMENT'),
    ('zz_realtime_mark_truncate', 'BEFORE TRUNCATE ON %s', 'STATEMENT')
  ) t (name, event, level)
  WHERE t.level = 'STATEMENT' OR (current_setting('server_version_num')::integer >= 150000
    AND EXISTS (SELECT FROM pg_class c WHERE c.oid = target AND c.relkind = 'p')
    -- As an earlier version named it.
    AND NOT EXISTS (
      SELECT FROM pg_trigger g WHERE g.tgrelid = target AND g.tgname = regexp_replace(t.name, '_[0-9]+$', '')
    ))
$$;
--> statement-breakpoint
-- Which of them the table has; of this watch alone, if its number is given. One that was restored into another database has
-- those of whatever is watched there under that number.
CREATE FUNCTION realtime.present_triggers(target regclass, number integer DEFAULT NULL) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(array_agg(t.tgname::text), '{}')
  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE t.tgrelid = target AND p.pronamespace = 'realtime'::regnamespace
    AND CASE WHEN number IS NULL THEN starts_with(p.proname::text, 'capture_') OR p.proname = 'mark'
      ELSE p.proname = 'capture_' || number OR (p.proname = 'mark' AND encode(t.tgargs, 'hex') = encode(number::text::bytea, 'hex') || '00')
      END
$$;
--> statement-breakpoint
-- Locks a table and its partitions, if that can be had soon: a lock that waits would make all writers wait behind it. Answers whether it did.
CREATE FUNCTION realtime.lock_briefly(target regclass, mode text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
BEGIN
  FOR attempt IN 1..5 LOOP
    BEGIN
      EXECUTE format('LOCK TABLE %s IN %s MODE', target, mode);
      RETURN true;
    EXCEPTION WHEN lock_not_available THEN
      PERFORM pg_sleep(0.05 * attempt);
    END;
  END LOOP;
  RETURN false;
END;
$$;
--> statement-breakpoint
-- One role writes watches at a time, until its transaction ends.
CREATE FUNCTION realtime.lock_watches() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  FOR attempt IN 1..20 LOOP
    IF pg_try_advisory_xact_lock(1937006946, 3) THEN
      RETURN;
    END IF;
    PERFORM pg_sleep(0.1);
  END LOOP;
  RAISE EXCEPTION 'another transaction is changing watches: try again'
    USING ERRCODE = 'lock_not_available', HINT = 'It holds the advisory lock (1937006946, 3) until it ends.';
END;
$$;
--> statement-breakpoint
-- Publishes every insert, update, delete and truncate of a table from the commit on. Calling it again replaces the
-- earlier watch, without a lock on the table; the same watch again changes nothing. A partitioned table is watched whole,
-- through writes that name it; a write that names one of its partitions directly fires no trigger of the parent and is not
-- seen.
CREATE FUNCTION realtime.watch(
  target regclass, channels text[] DEFAULT NULL, columns text[] DEFAULT NULL, numbers text DEFAULT 'json'
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = on
AS $$
#variable_conflict use_column
DECLARE
  relation pg_class;
  known realtime.watched;
  own text[];
  missing record;
  foreign_table regclass;
BEGIN
  SELECT * INTO relation FROM pg_class c WHERE c.oid = watch.target;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'realtime.watch: there is no such table' USING ERRCODE = 'undefined_table';
  ELSIF relation.relkind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION 'realtime.watch: % is not a table', watch.target
      USING ERRCODE = 'wrong_object_type', HINT = 'Watch the tables that a view or foreign table is made of.';
  ELSIF relation.relispartition THEN
    RAISE EXCEPTION 'realtime.watch: % is a partition', watch.target
      USING ERRCODE = 'wrong_object_type', HINT = format('Watch %s.', pg_partition_root(watch.target));
  ELSIF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = watch.target) THEN
    RAISE EXCEPTION 'realtime.watch: % inherits from another table, through which it is written without its triggers',
      watch.target USING ERRCODE = 'wrong_object_type';
  ELSIF relation.relpersistence = 't' OR relation.relnamespace IN ('realtime'::regnamespace, 'pg_catalog'::regnamespace) THEN
    RAISE EXCEPTION 'realtime.watch: % cannot be watched', watch.target USING ERRCODE = 'wrong_object_type';
  ELSIF NOT realtime.is_owner(watch.target) THEN
    RAISE EXCEPTION 'realtime.watch: must be owner of %', watch.target USING ERRCODE = 'insufficient_privilege';
  END IF;
  -- Here, as the same watch again is not checked.
  SELECT f.relation INTO foreign_table FROM realtime.foreign_partitions(watch.target) f (relation) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'realtime.watch: % cannot be watched: % is a foreign table', watch.target, foreign_table
      USING ERRCODE = 'wrong_object_type';
  END IF;
  watch.channels := coalesce(watch.channels, ARRAY[realtime.part(relation.relname)]);
  -- What an ended watch has: on a table that is watched nobody would be told that it ended.
  IF watch.channels = '{}' THEN
    RAISE EXCEPTION 'realtime.watch: 1 to 32 channel templates are needed, 0 given'
      USING ERRCODE = 'invalid_parameter_value', HINT = 'realtime.unwatch(table) ends a watch.';
  END IF;

  SELECT * INTO known FROM realtime.watched w WHERE w.target = watch.target;
  IF known.number IS NULL OR (known.channels, known.columns, known.numbers, known.shape)
    IS DISTINCT FROM (watch.channels, watch.columns, watch.numbers, realtime.shape(watch.target)) THEN
    PERFORM realtime.lock_watches();
    UPDATE realtime.watched w SET channels = watch.channels, columns = watch.columns, numbers = watch.numbers
    WHERE w.target = watch.target RETURNING * INTO known;
    IF NOT FOUND THEN
      INSERT INTO realtime.watched (target, channels, columns, numbers)
      VALUES (watch.target, watch.channels, watch.columns, watch.numbers) RETURNING * INTO known;
    END IF;
  END IF;

  own := realtime.present_triggers(watch.target, known.number);
  FOR missing IN
    SELECT u.name, NULL AS definition FROM unnest(realtime.present_triggers(watch.target)) u (name) WHERE u.name <> ALL (own)
    UNION ALL
    SELECT t.name, t.definition FROM realtime.watch_triggers(known.number, watch.target) t WHERE t.name <> ALL (own)
  LOOP
    IF NOT realtime.lock_briefly(watch.target,
      CASE WHEN missing.definition IS NULL THEN 'ACCESS EXCLUSIVE' ELSE 'SHARE ROW EXCLUSIVE' END) THEN
      RAISE EXCEPTION 'realtime.watch: % is being written by a transaction that stays open: try again', watch.target
        USING ERRCODE = 'lock_not_available',
          HINT = 'A first watch needs the table for a moment. Nothing was changed, and no writer was made to wait.';
    END IF;
    IF missing.definition IS NULL THEN
      EXECUTE format('DROP TRIGGER %I ON %s', missing.name, watch.target);
    ELSE
      EXECUTE format('CREATE TRIGGER %I %s', missing.name, missing.definition);
    END IF;
  END LOOP;
END;
$$;
--> statement-breakpoint
-- Ends the watch of a table, from the commit on. No error when there is none, so that a migration may say it twice. Its
-- triggers go too, if the table can be locked for that soon. Otherwise they stay without effect until the next call.
CREATE FUNCTION realtime.unwatch(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = on
AS $$
#variable_conflict use_column
DECLARE
  name text;
BEGIN
  IF NOT realtime.is_owner(unwatch.target) THEN
    RAISE EXCEPTION 'realtime.unwatch: must be owner of %', unwatch.target USING ERRCODE = 'insufficient_privilege';
  ELSIF realtime.present_triggers(unwatch.target) = '{}'
    AND NOT EXISTS (SELECT FROM realtime.watched w WHERE w.target = unwatch.target) THEN
    RETURN;
  END IF;
  PERFORM realtime.lock_watches();
  IF NOT realtime.lock_briefly(unwatch.target, 'ACCESS EXCLUSIVE') THEN
    UPDATE realtime.watched w SET channels = '{}' WHERE w.target = unwatch.target AND w.channels <> '{}';
    RAISE NOTICE 'realtime.unwatch: % is in use, so its triggers stay, without effect', unwatch.target
      USING HINT = 'Another call of realtime.unwatch drops them.';
    RETURN;
  END IF;
  FOREACH name IN ARRAY realtime.present_triggers(unwatch.target) LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', name, unwatch.target);
  END LOOP;
  DELETE FROM realtime.watched w WHERE w.target = unwatch.target;
END;
$$;
--> statement-breakpoint
-- Takes the trigger functions of tables that have got another owner from the former one, who could not be dropped else.
CREATE FUNCTION realtime.close_captures() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  item record;
BEGIN
  FOR item IN
    SELECT DISTINCT p.oid::regprocedure AS routine, w.number, c.relowner AS owner
    FROM realtime.watched w JOIN pg_class c ON c.oid = w.target
    JOIN pg_proc p ON p.oid = to_regprocedure(format('realtime.capture_%s()', w.number))
    CROSS JOIN LATERAL aclexplode(p.proacl) a
    WHERE a.grantee NOT IN (p.proowner, c.relowner)
  LOOP
    PERFORM realtime.close_function(item.routine);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', item.routine, pg_get_userbyid(item.owner));
  END LOOP;
END;
$$;
--> statement-breakpoint
-- PostgreSQL refuses to insert into a foreign partition while triggers of its table ask for the changed rows. So the
-- triggers of a watch go when such a partition was attached, and come back when it is gone; each time all channels get a
-- gap. Only a table's owner can do that. Answers false where the table is in use: it has to be tried again.
CREATE FUNCTION realtime.spare_foreign(watch realtime.watched) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  has_foreign boolean := EXISTS (SELECT FROM realtime.foreign_partitions(watch.target));
  present text[] := realtime.present_triggers(watch.target);
  item record;
BEGIN
  IF cardinality(watch.channels) = 0 OR NOT realtime.is_owner(watch.target) THEN
    RETURN true;
  ELSIF has_foreign AND present <> '{}' THEN
    IF NOT realtime.lock_briefly(watch.target, 'ACCESS EXCLUSIVE') THEN
      RETURN false;
    END IF;
    FOR item IN SELECT u.name FROM unnest(present) u (name) LOOP
      EXECUTE format('DROP TRIGGER %I ON %s', item.name, watch.target);
    END LOOP;
    PERFORM realtime.capture_fault(watch.target, 'a partition is a foreign table: nothing is captured while it is there');
  ELSIF NOT has_foreign AND present = '{}' AND watch.fault LIKE '%is a foreign table%' THEN
    IF NOT realtime.lock_briefly(watch.target, 'SHARE ROW EXCLUSIVE') THEN
      RETURN false;
    END IF;
    FOR item IN SELECT t.name, t.definition FROM realtime.watch_triggers(watch.number, watch.target) t LOOP
      EXECUTE format('CREATE TRIGGER %I %s', item.name, item.definition);
    END LOOP;
    PERFORM realtime.capture_fault(watch.target, 'nothing was captured while a partition was a foreign table');
  END IF;
  RETURN true;
END;
$$;
--> statement-breakpoint
-- Brings the trigger functions up to date with their tables, and with this version of the functions above: all of them when
-- `all_watches` is set, else those whose table was altered. Watches of dropped tables go. Tells the channels of a template
-- whose column is gone, once. Answers how many functions were written. Nothing waits: what another transaction holds is
-- left for the next time.
CREATE FUNCTION realtime.renew_captures(all_watches boolean) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
  watch realtime.watched;
  found_fault text;
  renewed integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(1937006946, 3) THEN
    RETURN 0;
  END IF;
  DELETE FROM realtime.watched w WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.target);
  FOR watch IN
    SELECT * FROM realtime.watched w WHERE all_watches OR w.shape IS DISTINCT FROM realtime.shape(w.target) ORDER BY w.number
  LOOP
    BEGIN
      found_fault := CASE WHEN cardinality(watch.channels) > 0 THEN realtime.watch_fault(watch) END;
    EXCEPTION WHEN lock_not_available THEN
      -- The expression of a virtual column cannot be read while its table is rewritten.
      UPDATE realtime.watched w SET shape = NULL WHERE w.number = watch.number;
      CONTINUE;
    END;
    IF found_fault IS DISTINCT FROM watch.fault AND (watch.shape = '') IS NOT TRUE THEN
      PERFORM realtime.capture_fault(watch.target, found_fault, ARRAY(
        SELECT DISTINCT b.template FROM realtime.broken_templates(watch) b
      ));
    END IF;
    BEGIN
      PERFORM realtime.define_capture(watch);
      IF realtime.spare_foreign(watch) THEN
        UPDATE realtime.watched w SET shape = realtime.shape(w.target), fault = found_fault WHERE w.number = watch.number;
      END IF;
    EXCEPTION WHEN lock_not_available THEN
      UPDATE realtime.watched w SET shape = NULL, fault = found_fault WHERE w.number = watch.number;
    WHEN OTHERS THEN
      -- What one table has must not keep the others from being renewed, nor a server from starting. It is tried again.
      UPDATE realtime.watched w SET shape = '', fault = concat_ws('; ', found_fault, SQLERRM) WHERE w.number = watch.number;
    END;
    renewed := renewed + 1;
  END LOOP;
  PERFORM realtime.close_captures();
  IF renewed > 0 THEN
    PERFORM realtime.ring();
  END IF;
  RETURN renewed;
END;
$$;
--> statement-breakpoint
-- Takes all of this away: triggers, functions, tables, and with the tables what was published. For the owner of the schema,
-- when no server runs. Nothing waits for a table that is in use; then nothing is done, and the call can be repeated.
CREATE FUNCTION realtime.uninstall() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
SET client_min_messages = warning
AS $$
BEGIN
  FOR attempt IN 1..5 LOOP
    BEGIN
      DROP FUNCTION IF EXISTS public.notify_realtime_event() CASCADE;
      DROP SCHEMA realtime CASCADE;
      RETURN;
    EXCEPTION WHEN lock_not_available THEN
      PERFORM pg_sleep(0.1);
    END;
  END LOOP;
  RAISE EXCEPTION 'realtime.uninstall: a watched table is in use: try again' USING ERRCODE = 'lock_not_available';
END;
$$;
--> statement-breakpoint
-- What is watched, and what is wrong with it.
CREATE VIEW realtime.watches AS
SELECT w.target::regclass AS "table", w.channels, w.columns, w.numbers, w.since,
  nullif(concat_ws('; ', w.fault,
    CASE WHEN w.shape IS DISTINCT FROM realtime.shape(w.target) THEN 'the table was altered; the server renews the watch' END,
    (SELECT CASE WHEN w.fault LIKE '%is a foreign table%' THEN 'nothing is captured while it is there'
        ELSE 'without triggers: ' || string_agg(t.name, ', ') || '; call realtime.watch again' END
      FROM realtime.watch_triggers(w.number, w.target) t
      WHERE t.name <> ALL (realtime.present_triggers(w.target, w.number)) HAVING count(*) > 0),
    (SELECT 'disabled triggers: ' || string_agg(t.tgname, ', ') FROM pg_trigger t
      WHERE t.tgrelid = w.target AND t.tgname = ANY (realtime.present_triggers(w.target)) AND t.tgenabled = 'D'
      HAVING count(*) > 0)
  ), '') AS fault,
  coalesce(f.count, 0) AS fault_count, f.last_reason, f.last_at AS last_fault_at
FROM realtime.watched w
LEFT JOIN LATERAL (
  SELECT sum(s.count)::bigint AS count, max(s.last_at) AS last_at,
    (array_agg(s.reason ORDER BY s.last_at DESC))[1] AS last_reason
  FROM realtime.faults s WHERE s.watch = w.number HAVING count(*) > 0
) f ON true
WHERE cardinality(w.channels) > 0 AND EXISTS (SELECT FROM pg_class c WHERE c.oid = w.target);
--> statement-breakpoint
ALTER TABLE realtime.watched ENABLE ROW LEVEL SECURITY;
--> statement-breakpoint
CREATE POLICY watched_owner ON realtime.watched USING (
  realtime.is_owner(target)
  AND has_function_privilege('realtime.watch(regclass, text[], text[], text)', 'EXECUTE')
);
