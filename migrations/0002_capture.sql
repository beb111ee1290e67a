-- From a row to the outbox: realtime.watch and unwatch, realtime.send, public.notify_realtime_event.
--
-- Rights. A role that writes a watched table needs none here. To publish by hand a role is given
--   GRANT USAGE ON SCHEMA realtime TO app; GRANT EXECUTE ON FUNCTION realtime.send(text, jsonb, text) TO app;
-- and to watch tables of its own, besides USAGE,
--   GRANT EXECUTE ON FUNCTION realtime.watch(regclass, text[], text[]), realtime.unwatch(regclass),
--     realtime.define_capture(regclass, text[], text[]), realtime.drop_captures() TO app;
-- watch runs as its caller, since only a table's owner may put triggers on it; the trigger function it makes belongs to
-- the owner of this schema and runs as that role, so that writers need no right on the outbox.

-- The doorbell. The relay holds this advisory lock exclusively while it sleeps; a writer that cannot share it rings. A
-- writer that can is noticed by the relay, which cannot fall asleep before that transaction ends. So writers notify
-- only while the relay sleeps: commits that notify queue one behind another. Two keys, so that an application's lock
-- on one big number is never met; the generated functions repeat these lines, as a call costs.
CREATE FUNCTION realtime.ring() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(1937006946, 1) THEN
    PERFORM pg_notify('realtime_wake', '');
  END IF;
END;
$$;
--> statement-breakpoint
-- Primary key columns of a table, NULL if it has none.
CREATE FUNCTION realtime.key_columns(target oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_agg(a.attname::text)
  FROM pg_index i
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
  WHERE i.indrelid = target AND i.indisprimary
$$;
--> statement-breakpoint
-- The table that a capture function serves.
CREATE FUNCTION realtime.captured_table(capture text) RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.tgrelid
  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE p.pronamespace = 'realtime'::regnamespace AND p.proname = capture
  LIMIT 1
$$;
--> statement-breakpoint
-- Primary key columns of that table. IMMUTABLE is a promise kept by the planner: the answer is folded into the plan of
-- the trigger function's statement, which is made anew whenever the table is altered.
CREATE FUNCTION realtime.captured_key(capture text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN realtime.key_columns(realtime.captured_table(capture));
END;
$$;
--> statement-breakpoint
-- Tells a writer clearly that a column named by realtime.watch is gone, in place of a parse error from deep inside.
-- IMMUTABLE as above: it runs when the statement is planned, so once per session and change of the table.
CREATE FUNCTION realtime.captured_columns_exist(capture text, wanted text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  target oid := realtime.captured_table(capture);
  missing text;
BEGIN
  SELECT string_agg(quote_ident(w), ', ') INTO missing
  FROM unnest(wanted) w
  WHERE NOT EXISTS (
    SELECT FROM pg_attribute a
    WHERE a.attrelid = target AND a.attname = w AND a.attnum > 0 AND NOT a.attisdropped
  );
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION
      'the watch of table % names columns that are gone: %; call realtime.watch or realtime.unwatch again',
      target::regclass, missing USING ERRCODE = 'undefined_column';
  END IF;
  RETURN true;
END;
$$;
--> statement-breakpoint
-- Splits a channel template into literal, column, literal, column, … literal. Raises on anything that is no template.
CREATE FUNCTION realtime.template_parts(template text, target regclass) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  rest text := template;
  parts text[] := '{}';
  literal text;
  name text;
BEGIN
  IF coalesce(template, '') = '' THEN
    RAISE EXCEPTION 'realtime.watch: a channel template is empty' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  LOOP
    literal := substring(rest FROM '^[^{}]*');
    rest := substr(rest, length(literal) + 1);
    IF literal !~ '^[A-Za-z0-9_.:@/-]{0,128}$' THEN
      RAISE EXCEPTION 'realtime.watch: "%" is not a channel template', template
        USING ERRCODE = 'invalid_parameter_value',
          HINT = 'A channel is 1 to 128 characters of A-Z a-z 0-9 _ . : - @ / and {column} stands for a value.';
    END IF;
    parts := parts || literal;
    EXIT WHEN rest = '';
    name := substring(rest FROM '^\{([^{}]+)\}');
    IF name IS NULL THEN
      RAISE EXCEPTION 'realtime.watch: channel template "%" has unbalanced or empty braces', template
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM realtime.require_column(target, name, format('channel template "%s"', template));
    parts := parts || name;
    rest := substr(rest, length(name) + 3);
  END LOOP;
  RETURN parts;
END;
$$;
--> statement-breakpoint
CREATE FUNCTION realtime.require_column(target regclass, name text, place text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_attribute a
    WHERE a.attrelid = target AND a.attname = name AND a.attnum > 0 AND NOT a.attisdropped
  ) THEN
    RAISE EXCEPTION 'realtime.watch: % names column "%", which % does not have', place, name, target
      USING ERRCODE = 'undefined_column';
  END IF;
END;
$$;
--> statement-breakpoint
-- A template as an expression over a row: NULL in any of its columns makes NULL, which is no channel. An inserted row
-- without a channel is written to '', which is none either: the relay drops it and counts it, so that a row that reaches
-- nobody is seen somewhere.
CREATE FUNCTION realtime.template_expression(parts text[], alias text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT string_agg(
    CASE WHEN n % 2 = 1 THEN quote_literal(part) ELSE format('%s.%I::text', alias, part) END, ' || ' ORDER BY n
  )
  FROM unnest(parts) WITH ORDINALITY AS p (part, n)
  WHERE n % 2 = 0 OR part <> ''
$$;
--> statement-breakpoint
-- One source of outbox rows in a generated statement: this channel with this data, unless the channel is NULL or one of
-- `others`.
CREATE FUNCTION realtime.capture_branch(channel text, data text, others text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('SELECT %s, %s', channel, data) || coalesce(' WHERE ' || nullif(concat_ws(' AND ',
    CASE WHEN channel NOT LIKE '''%' THEN channel || ' IS NOT NULL' END,
    CASE WHEN cardinality(others) > 0 AND NOT (channel LIKE '''%' AND array_to_string(others, '') NOT LIKE '%p.%')
      THEN format('(%s = ANY (ARRAY[%s])) IS NOT TRUE', channel, array_to_string(others, ', ')) END
  ), ''), '')
$$;
--> statement-breakpoint
-- Numbers the capture functions. Not the table's oid: a restored dump has other ones, and would overwrite.
CREATE SEQUENCE realtime.capture_number;
--> statement-breakpoint
-- Writes one table's trigger function and answers its name.
--
-- One function per table, all of it static SQL, so that its plans are cached and a statement of any size costs one
-- insert. Rows are printed by row_to_json, so a column added later appears by itself. The names of schema and table
-- come from the trigger's variables and so follow a rename; channels stay as they were given.
CREATE FUNCTION realtime.define_capture(target regclass, channels text[], columns text[]) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $define$
DECLARE
  capture text := 'capture_' || nextval('realtime.capture_number');
  template text;
  parts text[];
  statics text[] := '{}';
  patterns text[] := '{}';
  wanted text[] := coalesce(columns, '{}');
  settings text := '';
  guard text := '';
  -- What a row prints as, %s being its alias, and what has to join it for that. With the star, as a column may have the
  -- alias for its name.
  printed text := '%s.*';
  joined text := '';
  new_channels text[] := '{}';
  old_channels text[] := '{}';
  new_columns text := '';
  old_columns text := '';
  only_channel text;
  insertion text;
  inserted text[] := '{}';
  updated text[] := '{}';
  deleted text[] := '{}';
  moved boolean;
  number integer;
  named record;
BEGIN
  SELECT c.relname::text AS table_name, n.nspname::text AS schema_name INTO named
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
  FOREACH template IN ARRAY channels LOOP
    parts := realtime.template_parts(template, target);
    IF cardinality(parts) = 1 THEN
      statics := statics || template;
      only_channel := quote_literal(template) || '::text';
      new_channels := new_channels || (quote_literal(template) || '::text');
      old_channels := old_channels || (quote_literal(template) || '::text');
    ELSE
      wanted := wanted || ARRAY(SELECT part FROM unnest(parts) WITH ORDINALITY p (part, n) WHERE n % 2 = 0);
      patterns := patterns || (
        SELECT string_agg(CASE WHEN n % 2 = 1 THEN replace(part, '.', '\.') ELSE '.*' END, '' ORDER BY n)
        FROM unnest(parts) WITH ORDINALITY p (part, n)
      );
      number := cardinality(patterns);
      only_channel := realtime.template_expression(parts, 'n');
      new_columns := new_columns || format(', %s AS n%s', realtime.template_expression(parts, 'n'), number);
      old_columns := old_columns || format(', %s AS o%s', realtime.template_expression(parts, 'o'), number);
      new_channels := new_channels || format('p.n%s', number);
      old_channels := old_channels || format('p.o%s', number);
    END IF;
  END LOOP;

  -- In an update, a row has the channels of its old and of its new state: in both of them it changed, in an old one
  -- only it left, in a new one only it came.
  FOR i IN 1 .. cardinality(new_channels) LOOP
    moved := new_channels[i] <> old_channels[i];
    inserted := inserted || realtime.capture_branch(
      CASE WHEN new_channels[i] LIKE '''%' THEN new_channels[i] ELSE format($$coalesce(%s, '')$$, new_channels[i]) END,
      'p.data', new_channels[1:i - 1]
    );
    deleted := deleted || realtime.capture_branch(old_channels[i], 'p.data', old_channels[1:i - 1]);
    IF moved THEN
      updated := updated || realtime.capture_branch(
        old_channels[i],
        $$'{"action":"DELETE"' || statement.place || 'null,"old":' || p.old_row || ',"moved":true}'$$,
        old_channels[1:i - 1] || new_channels
      );
    END IF;
    updated := updated || realtime.capture_branch(
      new_channels[i],
      CASE WHEN moved THEN format(
        $$CASE WHEN %s = ANY (ARRAY[%s]) THEN p.data
          ELSE '{"action":"INSERT"' || statement.place || p.new_row || ',"old":null,"moved":true}' END$$,
        new_channels[i], array_to_string(old_channels, ', ')
      ) ELSE 'p.data' END,
      new_channels[1:i - 1]
    );
  END LOOP;

  IF columns IS NOT NULL THEN
    printed := '%s_shown.*';
    joined := ' CROSS JOIN LATERAL (SELECT ' || (
      SELECT string_agg(format('%%1$s.%I', replace(c, '%', '%%')), ', ' ORDER BY n)
      FROM unnest(columns) WITH ORDINALITY u (c, n)
    ) || ') %1$s_shown';
  END IF;

  -- A date in a channel's name must not depend on how the writer's session prints dates.
  IF EXISTS (
    SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = target AND a.attname = ANY (wanted) AND NOT a.attisdropped AND t.typcategory IN ('D', 'T')
  ) THEN
    settings := $$ SET datestyle = 'ISO, MDY' SET intervalstyle = 'iso_8601'$$;
  END IF;

  IF cardinality(wanted) > 0 THEN
    guard := format($$IF NOT EXISTS (SELECT FROM %%s WHERE realtime.captured_columns_exist(%L, %L)) THEN
      RETURN NULL;
    END IF;
    $$, capture, ARRAY(SELECT DISTINCT replace(w, '%', '%%') FROM unnest(wanted) w)::text);
  END IF;

  -- Inserts are what writers do most. With one channel per row the plan is a scan and an expression, which costs them
  -- a seventh less than the general form.
  IF cardinality(new_channels) = 1 THEN
    insertion := format(
      $$SELECT %1$s, '{"action":"INSERT"' || statement.place || row_to_json(%2$s)::text || ',"old":null}'
    FROM new_rows n%3$s$$,
      CASE WHEN cardinality(statics) = 1 THEN only_channel ELSE format($$coalesce(%s, '')$$, only_channel) END,
      format(printed, 'n'), format(joined, 'n')
    );
  ELSE
    insertion := format(
      $$SELECT e.channel, e.data
    FROM (
      SELECT '{"action":"INSERT"' || statement.place || row_to_json(%1$s)::text || ',"old":null}' AS data%2$s
      FROM new_rows n%3$s OFFSET 0
    ) p CROSS JOIN LATERAL (
      %4$s
    ) e (channel, data)$$,
      format(printed, 'n'), new_columns, format(joined, 'n'), array_to_string(inserted, E'\n      UNION ALL ')
    );
  END IF;

  EXECUTE format($function$
CREATE FUNCTION realtime.%I() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp%s
AS %L$function$, capture, settings, format($body$
-- Named, so that a column of the table that has the variable's name does no harm.
<<statement>>
DECLARE
  -- Written out for the name that the table has now; it may get another.
  place text := CASE WHEN TG_TABLE_NAME = %15$L AND TG_TABLE_SCHEMA = %16$L THEN %17$L ELSE
    ',"schema":' || to_json(TG_TABLE_SCHEMA::text)::text || ',"table":' || to_json(TG_TABLE_NAME::text)::text || ',"data":'
  END;
BEGIN
  IF TG_OP = 'INSERT' THEN
    %1$sINSERT INTO realtime.outbox (channel, data)
    %6$s;
  ELSIF TG_OP = 'UPDATE' THEN
    %1$sINSERT INTO realtime.outbox (channel, data)
    SELECT e.channel, e.data
    FROM (
      SELECT r.*, '{"action":"UPDATE"' || statement.place || r.new_row || ',"old":' || CASE
          WHEN realtime.captured_key(%13$L) IS NULL THEN r.old_row
          ELSE (
            -- Column by column, both rows having the same ones in the same order; as printed, which suits any type.
            SELECT coalesce('{' || string_agg(to_json(d.name)::text || ':' || d.old_value::text, ',') || '}', '{}')
            FROM ROWS FROM (json_each(r.old_row::json), json_each(r.new_row::json))
              AS d (name, old_value, same_name, new_value)
            WHERE d.old_value::text IS DISTINCT FROM d.new_value::text
              OR d.name = ANY (realtime.captured_key(%13$L))
          )
        END || '}' AS data
      FROM (
        -- The server writes both sets in lockstep, so they pair by place; a key would not do, as it may change.
        SELECT n.*, o.*
        FROM (
          SELECT row_number() OVER () AS new_number, row_to_json(%3$s)::text AS new_row%4$s
          FROM new_rows n%5$s
        ) n JOIN (
          SELECT row_number() OVER () AS old_number, row_to_json(%7$s)::text AS old_row%8$s
          FROM old_rows o%9$s
        ) o ON o.old_number = n.new_number
        ORDER BY n.new_number
      ) r OFFSET 0
    ) p CROSS JOIN LATERAL (
      %10$s
    ) e (channel, data);
  ELSIF TG_OP = 'DELETE' THEN
    %2$sINSERT INTO realtime.outbox (channel, data)
    SELECT e.channel, e.data
    FROM (
      SELECT '{"action":"DELETE"' || statement.place || 'null,"old":' || row_to_json(%7$s)::text || '}' AS data%8$s
      FROM old_rows o%9$s OFFSET 0
    ) p CROSS JOIN LATERAL (
      %11$s
    ) e (channel, data);
  ELSE
    -- Nobody can tell the rows any more, so every channel that the templates can have named is told.
    INSERT INTO realtime.outbox (channel, data)
    SELECT c.channel, '{"action":"TRUNCATE"' || statement.place || 'null,"old":null}'
    FROM (
      SELECT unnest(%14$L::text[]) AS channel
      UNION SELECT h.channel FROM realtime.channels h WHERE h.channel ~ %12$L
      UNION SELECT w.channel FROM realtime.outbox w WHERE w.channel ~ %12$L
    ) c;
  END IF;
  IF FOUND AND NOT pg_try_advisory_xact_lock_shared(1937006946, 1) THEN
    PERFORM pg_notify('realtime_wake', '');
  END IF;
  RETURN NULL;
END;
$body$,
    format(guard, 'new_rows'), format(guard, 'old_rows'),
    format(printed, 'n'), new_columns, format(joined, 'n'), insertion,
    format(printed, 'o'), old_columns, format(joined, 'o'), array_to_string(updated, E'\n      UNION ALL '),
    array_to_string(deleted, E'\n      UNION ALL '),
    CASE WHEN cardinality(patterns) = 0 THEN '^$' ELSE '^(' || array_to_string(patterns, '|') || ')$' END,
    capture, statics::text, named.table_name, named.schema_name,
    ',"schema":' || to_json(named.schema_name)::text || ',"table":' || to_json(named.table_name)::text || ',"data":'
  ));
  EXECUTE format('COMMENT ON FUNCTION realtime.%I() IS %L', capture,
    format('Publishes changes of %s to %s. Made by realtime.watch.', target, array_to_string(channels, ', ')));
  RETURN capture;
END;
$define$;
--> statement-breakpoint
-- Drops the trigger functions that no trigger uses: what a dropped table or an earlier watch left behind.
CREATE FUNCTION realtime.drop_captures() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  capture text;
BEGIN
  FOR capture IN
    SELECT p.proname FROM pg_proc p
    WHERE p.pronamespace = 'realtime'::regnamespace AND p.proname LIKE 'capture\_%'
      AND p.prorettype = 'trigger'::regtype
      AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid)
  LOOP
    EXECUTE format('DROP FUNCTION realtime.%I()', capture);
  END LOOP;
END;
$$;
--> statement-breakpoint
-- Publishes every insert, update, delete and truncate of a table from the commit on. Calling it again replaces the
-- earlier watch. A partitioned table is watched whole, through writes that name it; a write that names one of its
-- partitions directly fires no trigger of the parent and is not seen.
CREATE FUNCTION realtime.watch(target regclass, channels text[] DEFAULT NULL, columns text[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  relation pg_class;
  capture text;
  name text;
BEGIN
  SELECT * INTO relation FROM pg_class c WHERE c.oid = target;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'realtime.watch: there is no such table' USING ERRCODE = 'undefined_table';
  ELSIF relation.relkind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION 'realtime.watch: % is not a table', target
      USING ERRCODE = 'wrong_object_type', HINT = 'Watch the tables that a view or foreign table is made of.';
  ELSIF relation.relispartition THEN
    RAISE EXCEPTION 'realtime.watch: % is a partition', target
      USING ERRCODE = 'wrong_object_type', HINT = format('Watch %s.', pg_partition_root(target));
  ELSIF relation.relpersistence = 't' OR relation.relnamespace = 'realtime'::regnamespace
    OR relation.relnamespace = 'pg_catalog'::regnamespace THEN
    RAISE EXCEPTION 'realtime.watch: % cannot be watched', target USING ERRCODE = 'wrong_object_type';
  ELSIF NOT pg_has_role(relation.relowner, 'USAGE') THEN
    RAISE EXCEPTION 'realtime.watch: must be owner of %', target USING ERRCODE = 'insufficient_privilege';
  END IF;

  channels := coalesce(channels, ARRAY[relation.relname::text]);
  IF cardinality(channels) NOT BETWEEN 1 AND 32 THEN
    RAISE EXCEPTION 'realtime.watch: 1 to 32 channel templates are needed, % given', cardinality(channels)
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF cardinality(channels) > (SELECT count(DISTINCT c) FROM unnest(channels) c WHERE c IS NOT NULL) THEN
    RAISE EXCEPTION 'realtime.watch: a channel template is NULL or given twice'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF cardinality(columns) = 0 OR cardinality(columns) > (SELECT count(DISTINCT c) FROM unnest(columns) c) THEN
    RAISE EXCEPTION 'realtime.watch: the list of columns is empty, or names one twice or NULL'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOREACH name IN ARRAY coalesce(columns, '{}') LOOP
    PERFORM realtime.require_column(target, name, 'the list of columns');
  END LOOP;

  -- One at a time, as two sessions would drop the same leftovers.
  PERFORM pg_advisory_xact_lock(1937006946, 3);
  capture := realtime.define_capture(target, channels, columns);
  PERFORM realtime.drop_watch_triggers(target);
  EXECUTE format('CREATE TRIGGER realtime_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows '
    'FOR EACH STATEMENT EXECUTE FUNCTION realtime.%I()', target, capture);
  EXECUTE format('CREATE TRIGGER realtime_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows '
    'NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION realtime.%I()', target, capture);
  EXECUTE format('CREATE TRIGGER realtime_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
    'FOR EACH STATEMENT EXECUTE FUNCTION realtime.%I()', target, capture);
  EXECUTE format('CREATE TRIGGER realtime_truncate AFTER TRUNCATE ON %s '
    'FOR EACH STATEMENT EXECUTE FUNCTION realtime.%I()', target, capture);
  PERFORM realtime.drop_captures();
END;
$$;
--> statement-breakpoint
CREATE FUNCTION realtime.drop_watch_triggers(target regclass) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  name text;
  dropped integer := 0;
BEGIN
  FOR name IN
    SELECT t.tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = target AND p.pronamespace = 'realtime'::regnamespace AND p.proname LIKE 'capture\_%'
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', name, target);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END;
$$;
--> statement-breakpoint
-- Ends the watch of a table. No error when there is none, so that a migration may say it twice.
CREATE FUNCTION realtime.unwatch(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = target), 'USAGE') THEN
    RAISE EXCEPTION 'realtime.unwatch: must be owner of %', target USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM pg_advisory_xact_lock(1937006946, 3);
  PERFORM realtime.drop_watch_triggers(target);
  PERFORM realtime.drop_captures();
END;
$$;
--> statement-breakpoint
-- Publishes when, and only when, the caller's transaction commits.
CREATE FUNCTION realtime.send(channel text, data jsonb, key text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF channel IS NULL OR channel !~ '^[A-Za-z0-9_.:@/-]{1,128}$' THEN
    RAISE EXCEPTION 'realtime.send: "%" is not a channel', channel
      USING ERRCODE = 'invalid_parameter_value', HINT = 'A channel is 1 to 128 characters of A-Z a-z 0-9 _ . : - @ /';
  ELSIF data IS NULL THEN
    RAISE EXCEPTION 'realtime.send: data is NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'JSON null is ''null''.';
  ELSIF length(key) NOT BETWEEN 1 AND 64 THEN
    RAISE EXCEPTION 'realtime.send: a key has 1 to 64 characters' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- The relay must find that a transaction is under way before it finds that an id is taken: it gives up waiting for an
  -- id once every transaction of that time has ended. Triggers come after a write, so theirs is known already.
  PERFORM pg_current_xact_id();
  INSERT INTO realtime.outbox (channel, data, key) VALUES (send.channel, send.data::text, send.key);
  PERFORM realtime.ring();
END;
$$;
--> statement-breakpoint
-- For triggers that users write themselves: AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW, or AFTER TRUNCATE. The
-- channel is the table's name. realtime.watch is cheaper for the writer: this one runs once per row.
CREATE FUNCTION public.notify_realtime_event() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- A partition's rows are changes of the table that it is part of.
  root oid := coalesce(pg_partition_root(TG_RELID)::oid, TG_RELID);
  name text := TG_TABLE_NAME;
  space text := TG_TABLE_SCHEMA;
  new_row json;
  old_row json;
  old_shown text;
  key_names text[];
BEGIN
  IF TG_WHEN <> 'AFTER' OR NOT (TG_LEVEL = 'ROW' OR TG_OP = 'TRUNCATE') THEN
    RAISE EXCEPTION 'notify_realtime_event: trigger % on % must be AFTER ... FOR EACH ROW', TG_NAME, TG_RELID::regclass
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'AFTER TRUNCATE ... FOR EACH STATEMENT works too.';
  END IF;
  IF root <> TG_RELID THEN
    SELECT c.relname, n.nspname INTO name, space
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = root;
  END IF;
  IF TG_OP IN ('INSERT', 'UPDATE') THEN
    new_row := row_to_json(NEW);
  END IF;
  IF TG_OP IN ('UPDATE', 'DELETE') THEN
    old_row := row_to_json(OLD);
  END IF;
  old_shown := old_row::text;
  IF TG_OP = 'UPDATE' THEN
    key_names := realtime.key_columns(TG_RELID);
    IF key_names IS NOT NULL THEN
      SELECT coalesce('{' || string_agg(to_json(d.name)::text || ':' || d.old_value::text, ',') || '}', '{}')
      INTO old_shown
      FROM ROWS FROM (json_each(old_row), json_each(new_row)) AS d (name, old_value, same_name, new_value)
      WHERE d.old_value::text IS DISTINCT FROM d.new_value::text OR d.name = ANY (key_names);
    END IF;
  END IF;
  INSERT INTO realtime.outbox (channel, data) VALUES (
    name,
    '{"action":"' || TG_OP || '","schema":' || to_json(space)::text || ',"table":' || to_json(name)::text
      || ',"data":' || coalesce(new_row::text, 'null') || ',"old":' || coalesce(old_shown, 'null') || '}'
  );
  IF NOT pg_try_advisory_xact_lock_shared(1937006946, 1) THEN
    PERFORM pg_notify('realtime_wake', '');
  END IF;
  RETURN NULL;
END;
$$;
--> statement-breakpoint
REVOKE ALL ON FUNCTION
  realtime.ring(), realtime.key_columns(oid), realtime.captured_table(text), realtime.captured_key(text),
  realtime.captured_columns_exist(text, text[]), realtime.define_capture(regclass, text[], text[]),
  realtime.drop_captures(), realtime.watch(regclass, text[], text[]), realtime.unwatch(regclass),
  realtime.send(text, jsonb, text)
FROM PUBLIC;
