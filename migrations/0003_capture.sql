-- From a row to the outbox: how the trigger function of one watched table is written.
--
-- One function per table, static SQL, so that its plans are cached and a statement of any size costs one insert. It
-- belongs to the owner of this schema and runs as that role, so that writers need no right on the outbox; therefore no
-- code of anybody else may run in it (0002_values). It is written for the columns that the table has. When the table is
-- altered, the function notices before it would fail, and writes its statement again for each call, until the server
-- replaces it.

-- Primary key columns of a table, NULL if it has none. A deferrable one tells no row from another before the transaction
-- ends, so it counts as none.
CREATE FUNCTION realtime.key_columns(target oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_agg(a.attname::text ORDER BY a.attnum)
  FROM pg_index i
  -- Behind the key's own columns stand those that its index merely includes.
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
  WHERE i.indrelid = target AND i.indisprimary AND i.indimmediate
$$;
--> statement-breakpoint
-- The table and the composite types that its columns hold: what has to stay as it is for a statement to stay right.
CREATE FUNCTION realtime.relations_within(target regclass) RETURNS regclass[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT target || ARRAY(
    SELECT DISTINCT realtime.composite_relation(w.type)::regclass
    FROM pg_attribute a CROSS JOIN LATERAL realtime.types_within(a.atttypid) w (type)
    WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
      AND realtime.composite_relation(w.type) <> 0
    ORDER BY 1
  )
$$;
--> statement-breakpoint
-- The foreign tables among a table's partitions. By the catalog alone: pg_partition_tree locks all partitions, so that a
-- writer of one would wait for another that is being rewritten, and keep it from being dropped.
CREATE FUNCTION realtime.foreign_partitions(target oid) RETURNS SETOF regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH RECURSIVE within AS (
    SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = target AND c.relkind = 'p'
    UNION ALL
    SELECT c.oid, c.relkind
    FROM within w JOIN pg_inherits i ON i.inhparent = w.oid JOIN pg_class c ON c.oid = i.inhrelid WHERE w.relkind = 'p'
  )
  SELECT w.oid::regclass FROM within w WHERE w.relkind = 'f' ORDER BY w.oid
$$;
--> statement-breakpoint
-- What a trigger function is written for, in 32 letters: the table's name, columns, their types, computed values, the key.
-- Also what makes a watch faulty, so that it is looked at again when that comes: tables that inherit, foreign partitions.
-- It is the same in every session: where one quotes all names, each of its statements would find the table altered. An
-- expression is compared as it is stored: pg_get_expr waits for a table that is being rewritten, and prints constants as
-- the session likes them.
CREATE FUNCTION realtime.shape(target regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
  SELECT md5(concat_ws('|', string_agg(
    concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated,
      CASE WHEN a.attgenerated <> '' THEN d.adbin END),
    ',' ORDER BY a.attrelid, a.attnum
  ), array_to_string(realtime.key_columns(target), ','), (
    -- Before PostgreSQL 14 it fails for a table that is gone.
    SELECT (pg_identify_object('pg_class'::regclass, c.oid, 0)).identity FROM pg_class c WHERE c.oid = target
  ), (
    SELECT string_agg(i.inhrelid::text, ',' ORDER BY i.inhrelid)
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = target AND NOT c.relispartition
  ), (
    SELECT string_agg(f.relation::oid::text, ',' ORDER BY f.relation) FROM realtime.foreign_partitions(target) f (relation)
  )))
  FROM unnest(realtime.relations_within(target)) r (relation)
  JOIN pg_attribute a ON a.attrelid = r.relation AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
$$;
--> statement-breakpoint
-- Whether a trigger function that was written for this shape of its table is right for the table as it is.
--
-- IMMUTABLE is a promise that the planner keeps: the answer is folded into the plan of the expression that asks, and
-- that plan is made again whenever one of `relations` is altered, since constants of type regclass are what it depends
-- on. The catalog is read as of the transaction's snapshot, which may be older than the columns that the statement
-- meets; pg_identify_object reads it as it is now.
CREATE FUNCTION realtime.is_current(shape text, VARIADIC relations regclass[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN shape = realtime.shape(relations[1]) AND NOT EXISTS (
    SELECT FROM pg_attribute a
    WHERE a.attrelid = ANY (relations) AND a.attnum > 0 AND NOT a.attisdropped
      AND (pg_identify_object('pg_class'::regclass, a.attrelid, a.attnum)).identity IS DISTINCT FROM
        (pg_identify_object('pg_class'::regclass, a.attrelid, 0)).identity || '.' || quote_ident(a.attname)
  );
END;
$$;
--> statement-breakpoint
-- Whether the value of a computed column can be computed here: only from what PostgreSQL brings. Before PostgreSQL 15 the
-- column depends on what computes it, not its expression.
CREATE FUNCTION realtime.is_computable(target oid, place integer) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT NOT EXISTS (
    SELECT FROM pg_attrdef d JOIN pg_depend p ON (p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid)
      OR (current_setting('server_version_num')::integer < 150000
        AND p.classid = 'pg_class'::regclass AND p.objid = d.adrelid AND p.objsubid = d.adnum)
    WHERE d.adrelid = target AND d.adnum = place AND p.refobjid >= 16384 AND p.refclassid <> 'pg_class'::regclass
  )
$$;
--> statement-breakpoint
-- Splits a channel template into literal, column, literal, column, ... literal. Raises on anything that is no template.
CREATE FUNCTION realtime.template_parts(template text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE
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
    IF literal !~ '^([A-Za-z0-9_.:@/-]|%[0-9A-Fa-f]{2})*$' OR length(literal) > 256 THEN
      RAISE EXCEPTION 'realtime.watch: "%" is not a channel template', template
        USING ERRCODE = 'invalid_parameter_value',
          HINT = 'A channel is 1 to 256 characters of A-Z a-z 0-9 _ . : - @ / %XX and {column} stands for a value.';
    END IF;
    parts := parts || literal;
    EXIT WHEN rest = '';
    name := substring(rest FROM '^[{]([^{}]+)[}]');
    IF name IS NULL THEN
      RAISE EXCEPTION 'realtime.watch: channel template "%" has unbalanced or empty braces', template
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
    parts := parts || name;
    rest := substr(rest, length(name) + 3);
  END LOOP;
  RETURN parts;
END;
$$;
--> statement-breakpoint
-- A value as one part of a channel's name: what a name may not hold, and what separates its parts, is written %XX. NULL for
-- a value that is no UTF-8, as databases of other encodings may hold: it makes no channel, and no writer's statement fails.
CREATE FUNCTION realtime.part(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  bytes bytea;
BEGIN
  -- A collation in which different texts are equal takes no patterns.
  IF value COLLATE "C" ~ '^[A-Za-z0-9_.@/-]*$' THEN
    RETURN value;
  END IF;
  BEGIN
    bytes := convert_to(value, 'UTF8');
  EXCEPTION WHEN untranslatable_character OR character_not_in_repertoire THEN
    RETURN NULL;
  END;
  RETURN (
    SELECT string_agg(
      CASE WHEN b.byte IN (45, 46, 47, 64, 95) OR b.byte BETWEEN 48 AND 57 OR b.byte BETWEEN 65 AND 90
        OR b.byte BETWEEN 97 AND 122 THEN chr(b.byte)
        ELSE '%' || upper(lpad(to_hex(b.byte), 2, '0')) END,
      '' ORDER BY b.place
    )
    FROM (
      SELECT get_byte(bytes, i) AS byte, i AS place FROM generate_series(0, length(bytes) - 1) i
    ) b
  );
END;
$$;
--> statement-breakpoint
-- The columns that a watch uses. `value` is what the column is among the changed rows, where a virtual column has no
-- value of its own. Nor has a stored one where a row was inserted into a partition whose columns lie otherwise: the server
-- shows the row as it was before. `shown` is its place in the JSON, NULL where it is not in it.
CREATE FUNCTION realtime.captured_columns(watch realtime.watched)
RETURNS TABLE (place integer, name text, type oid, value text, is_key boolean, shown integer, is_long boolean)
LANGUAGE sql STABLE
-- A constant of a virtual column is read elsewhere than where it is written here.
SET search_path = pg_catalog, pg_temp
SET bytea_output = hex
SET datestyle = 'ISO, MDY'
SET extra_float_digits = 1
SET intervalstyle = postgres
SET lc_monetary = 'C'
SET quote_all_identifiers = off
SET timezone = 'UTC'
AS $$
  SELECT a.attnum::integer, a.attname::text, a.atttypid,
    CASE WHEN a.attgenerated = 'v' THEN format('(%s)', pg_get_expr(d.adbin, d.adrelid))
      WHEN a.attgenerated = 's' AND k.is_partitioned AND realtime.is_computable(a.attrelid, a.attnum)
        THEN format('(coalesce(r.%I, %s))', a.attname, pg_get_expr(d.adbin, d.adrelid))
      ELSE format('r.%I', a.attname) END,
    coalesce(a.attname = ANY (k.names), false),
    CASE WHEN watch.columns IS NULL THEN a.attnum::integer ELSE array_position(watch.columns, a.attname::text) END,
    -- Some lengths are known from the type.
    a.attlen = -1 AND NOT (a.atttypid IN (1042, 1043, 1560, 1562, 1700) AND a.atttypmod BETWEEN 0 AND 2000)
  -- OFFSET keeps the planner from asking for each column.
  FROM (
    SELECT realtime.key_columns(watch.target) AS names,
      (SELECT c.relkind FROM pg_class c WHERE c.oid = watch.target) = 'p' AS is_partitioned OFFSET 0
  ) k
  CROSS JOIN pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = watch.target AND a.attnum > 0 AND NOT a.attisdropped
    AND (a.attgenerated <> 'v' OR realtime.is_computable(a.attrelid, a.attnum))
$$;
--> statement-breakpoint
-- The changed rows of one side as a source of columns n_1, n_2, ... or o_1, o_2, .... The names of the table's columns are
-- met here and in the printed JSON alone, so none of them can be taken for another. `rows` is where they come from, as r.
CREATE FUNCTION realtime.capture_side(watch realtime.watched, side text, rows text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  -- A table may have lost its last column.
  SELECT format('%s FROM %s r', coalesce(
    string_agg(format('%s AS %s_%s', c.value, side, c.place), ', ' ORDER BY c.place), format('NULL AS %s_0', side)
  ), rows)
  FROM realtime.captured_columns(watch) c
$$;
--> statement-breakpoint
-- The row of one side as it is shown, a source named n_row or o_row.
CREATE FUNCTION realtime.capture_row(watch realtime.watched, side text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format(' CROSS JOIN LATERAL (SELECT %s) %s_row', string_agg(
    format('%s AS %I', (realtime.printed(c.type, format('q.%s_%s', side, c.place), '', watch.numbers)).expression, c.name),
    ', ' ORDER BY c.shown
  ), side)
  FROM realtime.captured_columns(watch) c WHERE c.shown IS NOT NULL
$$;
--> statement-breakpoint
-- Whether the columns still have the types that the statement was written for, as a part of that very statement: types
-- are looked up when it is parsed, which may be after its writing was found to be right.
CREATE FUNCTION realtime.capture_types(watch realtime.watched, rows text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('(SELECT ARRAY[%s]::oid[] = %L::oid[] FROM (SELECT NULL) z LEFT JOIN %s r ON true LIMIT 1)',
    string_agg(format('pg_typeof(%s)::oid', u.leaf), ', ' ORDER BY c.place, u.n),
    coalesce(array_agg(u.type ORDER BY c.place, u.n), '{}')::text, rows)
  FROM realtime.captured_columns(watch) c
  CROSS JOIN LATERAL realtime.printed(c.type, '', c.value, watch.numbers) p
  CROSS JOIN LATERAL unnest(p.leaves, p.types) WITH ORDINALITY u (leaf, type, n)
$$;
--> statement-breakpoint
-- Whether the rows of these sides are short enough to be printed. As stored they are compressed, at most 255 times, and
-- print as six characters for one at most: what is below the first limit cannot outgrow the server's gigabyte. Larger
-- ones are measured. The largest value stands for all, which spares the additions: a function costs each statement.
CREATE FUNCTION realtime.capture_fits(watch realtime.watched, sides text[], prefix text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN s.sizes IS NULL THEN 'true' ELSE format(
    CASE cardinality(s.sizes) WHEN 1 THEN '((%s < %s) IS NOT FALSE OR realtime.json_fits(%s, %s))'
      ELSE '((greatest(%s) < %s) IS NOT FALSE OR realtime.json_fits(%s, %s))' END,
    array_to_string(s.sizes, ', '), 300000 / cardinality(s.sizes), s.lengths[1],
    coalesce('realtime.json_length(' || nullif(array_to_string(s.lengths[2:], ') + realtime.json_length('), '') || ')', '0')
  ) END
  FROM (
    SELECT array_agg(format('pg_column_size(%s)', v.value) ORDER BY v.value) AS sizes,
      array_agg(format('%s, %s', v.value, realtime.is_plain(c.type, 'json')::text) ORDER BY v.value) AS lengths
    FROM realtime.captured_columns(watch) c CROSS JOIN unnest(sides) side
    CROSS JOIN LATERAL (SELECT format('%s%s_%s', prefix, side, c.place)) v (value)
    WHERE c.is_long
  ) s
$$;
--> statement-breakpoint
-- What an UPDATE shows of the old row beside the new one, as JSON: the key and what was changed; without a key, the row.
-- Compared as printed, which suits any type, or by value where that is the same.
CREATE FUNCTION realtime.capture_changes(watch realtime.watched) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH member AS (
    SELECT c.is_key, c.shown, (row_number() OVER (ORDER BY c.shown) - 1) / 90 AS part,
      CASE WHEN c.is_key THEN p.member ELSE format('CASE WHEN %s THEN %s END', CASE
        WHEN c.type IN (16, 17, 20, 21, 23, 26, 1082, 1083, 1114, 1184, 2950) THEN
          format('q.n_%1$s IS DISTINCT FROM q.o_%1$s', c.place)
        WHEN c.type IN (25, 1043) THEN
          format('q.n_%1$s COLLATE "C" IS DISTINCT FROM q.o_%1$s COLLATE "C"', c.place)
        ELSE format('to_json(%s)::text IS DISTINCT FROM to_json(%s)::text', p.new_value, p.old_value)
      END, p.member) END AS expression
    FROM realtime.captured_columns(watch) c
    CROSS JOIN LATERAL (
      SELECT n.expression, o.expression, format('%L || coalesce(%s, ''null'')', ',' || to_json(c.name)::text || ':',
        -- Numbers look the same as text, which costs a third of the way through to_json.
        format(CASE WHEN c.type IN (21, 23) OR (c.type = 20 AND watch.numbers = 'json') THEN '%s::text'
          ELSE 'to_json(%s)::text' END, o.expression))
      FROM realtime.printed(c.type, format('q.n_%s', c.place), '', watch.numbers) n,
        realtime.printed(c.type, format('q.o_%s', c.place), '', watch.numbers) o
    ) p (new_value, old_value, member)
  )
  SELECT CASE WHEN (SELECT bool_or(m.is_key) FROM member m) THEN (
    -- A function takes a hundred arguments at most. Of a list no column may be left.
    SELECT format($f$'{' || substr(%s, 2) || '}'$f$, coalesce(string_agg(c.text, ' || ' ORDER BY c.part), ''''''))
    FROM (
      SELECT m.part, format('concat(%s)', string_agg(m.expression, ', ' ORDER BY m.shown)) AS text
      FROM member m WHERE m.shown IS NOT NULL GROUP BY m.part
    ) c
  ) ELSE 'row_to_json(o_row.*)::text' END
$$;
--> statement-breakpoint
-- A channel of the watch as an expression over one side: NULL where a value of its template is NULL, which is no channel.
-- A template whose column is gone makes none for any row. Names compare by their bytes, whatever the column's collation: one
-- in which different texts are equal takes no patterns, and would not see a row go from one channel to the other.
CREATE FUNCTION realtime.capture_channel(watch realtime.watched, template text, side text, prefix text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT string_agg(
    CASE WHEN p.n % 2 = 1 THEN format('%L::text', p.part)
      WHEN c.name IS NULL THEN 'NULL::text'
      WHEN realtime.base_type(c.type) IN (16, 20, 21, 23, 26, 1082, 2950) THEN v.value || '::text'
      ELSE format('CASE WHEN %1$s ~ ''^[A-Za-z0-9_.@/-]*$'' THEN %1$s ELSE realtime.part(%1$s) END', format('left((%s) COLLATE "C", 300)',
        CASE WHEN realtime.is_plain(c.type, 'json') THEN v.value || '::text'
          ELSE format('CASE WHEN num_nulls(%1$s) = 0 THEN format(''%%s'', %1$s) END', v.value) END))
    END, ' || ' ORDER BY p.n
  )
  FROM unnest(realtime.template_parts(template)) WITH ORDINALITY p (part, n)
  LEFT JOIN realtime.captured_columns(watch) c ON p.n % 2 = 0 AND c.name = p.part
  CROSS JOIN LATERAL (SELECT format('%s%s_%s', prefix, side, c.place)) v (value)
  WHERE p.n % 2 = 0 OR p.part <> ''
$$;
--> statement-breakpoint
-- Who a change is about, for putting nested statements in order (realtime.reorder): the watch, the key before and after,
-- the row before and after as printed, and how deep triggers are nested. Without a key, the row is its own.
CREATE FUNCTION realtime.capture_subject(watch realtime.watched, sides text[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('ARRAY[%L, %s, %s, pg_trigger_depth()::text]', watch.number, string_agg(coalesce(s.key, s.image), ', ' ORDER BY s.place),
    string_agg(s.image, ', ' ORDER BY s.place))
  FROM (
    SELECT u.place,
      CASE WHEN u.side = ANY (sides) THEN format('md5(row_to_json(%s_row.*)::text)', u.side) ELSE 'NULL' END AS image,
      CASE WHEN u.side = ANY (sides) THEN (
        -- NULL without a key, which format would make an empty one for all rows.
        SELECT 'json_build_array(' || string_agg(
          (realtime.printed(c.type, format('q.%s_%s', u.side, c.place), '', 'json')).expression, ', ' ORDER BY c.place)
          || ')::text'
        FROM realtime.captured_columns(watch) c WHERE c.is_key
      ) ELSE 'NULL' END AS key
    FROM (VALUES (1, 'o'), (2, 'n')) u (place, side)
  ) s
$$;
--> statement-breakpoint
-- One source of outbox rows: this channel with this data, unless the channel is NULL or one of `others`.
CREATE FUNCTION realtime.capture_branch(channel text, data text, others text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('SELECT %s, %s', channel, data) || coalesce(' WHERE ' || nullif(concat_ws(' AND ',
    CASE WHEN channel LIKE 'p.%' THEN channel || ' IS NOT NULL' END,
    CASE WHEN cardinality(others) > 0 AND (channel || array_to_string(others, '')) LIKE '%p.%'
      THEN format('(%s = ANY (ARRAY[%s])) IS NOT TRUE', channel, array_to_string(others, ', ')) END
  ), ''), '')
$$;
--> statement-breakpoint
-- The outbox rows of one change p, one for each channel: a row that changes channel leaves the old one as DELETE and
-- enters the new one as INSERT. `news` and `olds` are the channels of both sides as expressions.
CREATE FUNCTION realtime.capture_branches(operation text, news text[], olds text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  branches text[] := '{}';
BEGIN
  FOR i IN 1..cardinality(news) LOOP
    IF operation = 'INSERT' THEN
      -- A row without a channel is written to '', which is none either: the relay counts it, so that a row that reaches
      -- nobody is seen somewhere.
      branches := branches || realtime.capture_branch(
        CASE WHEN news[i] LIKE 'p.%' THEN format('coalesce(%s, '''')', news[i]) ELSE news[i] END, 'p.data',
        news[1:i - 1]
      );
    ELSIF operation = 'DELETE' THEN
      branches := branches || realtime.capture_branch(olds[i], 'p.data', olds[1:i - 1]);
    ELSIF news[i] = olds[i] THEN
      branches := branches || realtime.capture_branch(news[i], 'p.data', news[1:i - 1]);
    ELSE
      branches := branches || realtime.capture_branch(olds[i], 'p.moved_out', olds[1:i - 1] || news)
        || realtime.capture_branch(
          news[i],
          format('CASE WHEN %s = ANY (ARRAY[%s]) THEN p.data ELSE p.moved_in END', news[i], array_to_string(olds, ', ')),
          news[1:i - 1]
        );
    END IF;
  END LOOP;
  RETURN array_to_string(branches, ' UNION ALL ');
END;
$$;
--> statement-breakpoint
-- Whether a table has more columns than can be captured: both sides of an update are one list, which PostgreSQL limits to
-- 1,664.
CREATE FUNCTION realtime.is_too_wide(target oid) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT count(*) > 800 FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
$$;
--> statement-breakpoint
-- The statement that captures one operation. `xid` and `place` are expressions for the transaction's id and for the JSON
-- between action and row. `in_doubt` adds what is needed where statements nest, or where the transaction may see an older
-- catalog than the statement: subjects, and the check of the types. `is_alone` is for an update of one row, and does nothing
-- for one of several.
--
-- From the inside: the changed rows; q, with both sides of each; p, with its JSON; e, one row for each channel. Each row
-- takes the position of the write-ahead log just before it is written, which rises from row to row.
CREATE FUNCTION realtime.capture_statement(
  watch realtime.watched, operation text, xid text, place text, in_doubt boolean, is_alone boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  sides text[] := CASE operation WHEN 'INSERT' THEN '{n}' WHEN 'DELETE' THEN '{o}' ELSE '{n,o}' END::text[];
  is_update boolean := operation = 'UPDATE';
  changed_rows text := CASE operation WHEN 'DELETE' THEN 'old_rows' ELSE 'new_rows' END;
  check_types text := CASE WHEN in_doubt THEN ' WHERE ' || realtime.capture_types(watch, changed_rows) ELSE '' END;
  prefix text := CASE operation WHEN 'UPDATE' THEN '' ELSE 'q.' END;
  fits text := realtime.capture_fits(watch, sides, prefix);
  changed text;
  channels text[] := '{}';
  given text[] := '{}';
  news text[] := '{}';
  olds text[] := '{}';
  moves text[] := '{}';
BEGIN
  IF realtime.is_too_wide(watch.target) THEN
    RAISE EXCEPTION 'the table has more than 800 columns';
  END IF;
  FOR i IN 1..cardinality(watch.channels) LOOP
    IF watch.channels[i] NOT LIKE '%{%' THEN
      news := news || format('%L::text', watch.channels[i]);
      olds := olds || format('%L::text', watch.channels[i]);
    ELSE
      channels := channels || ARRAY(
        SELECT format('%s AS %s_channel_%s', realtime.capture_channel(watch, watch.channels[i], u.side, prefix), u.side, i)
        FROM unnest(sides) u (side)
      );
      news := news || format('p.n_channel_%s', i);
      olds := olds || format('p.o_channel_%s', i);
      moves := moves || format('q.n_channel_%1$s IS DISTINCT FROM q.o_channel_%1$s', i);
    END IF;
  END LOOP;

  IF is_update THEN
    -- The server writes both sets of an update in lockstep, so they pair by place; a key would not do, as it may change. A
    -- full join is hashed or merged: a nested loop, once chosen for few rows, would take hours for many. A row of which
    -- only one side is here cannot be told.
    IF is_alone THEN
      changed := format(
        '(SELECT %s FROM (SELECT %s) n CROSS JOIN (SELECT %s) o WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1))',
        array_to_string('{*}' || (format('%s AS fits', fits) || channels), ', '),
        realtime.capture_side(watch, 'n', 'new_rows'), realtime.capture_side(watch, 'o', 'old_rows')
      );
    ELSE
      changed := format(
        '(SELECT %s FROM (SELECT row_number() OVER () AS n_number, %s) n FULL JOIN (SELECT row_number() OVER () AS o_number, %s) o'
          ' ON n_number = o_number%s ORDER BY n_number)',
        array_to_string('{*}' || (format('n_number = o_number AND %s AS fits', fits) || channels), ', '),
        realtime.capture_side(watch, 'n', 'new_rows'), realtime.capture_side(watch, 'o', 'old_rows'), check_types
      );
    END IF;
    given := format(
      $f$CASE WHEN q.fits THEN concat('{"action":"UPDATE"' || %s, row_to_json(n_row.*), ',"old":', %s, '}') END AS data$f$,
      place, realtime.capture_changes(watch)
    ) || ARRAY(
      SELECT format('q.%s_channel_%s', u.side, i)
      FROM generate_series(1, cardinality(watch.channels)) i, unnest(sides) u (side) WHERE watch.channels[i] LIKE '%{%'
    );
    IF cardinality(moves) > 0 THEN
      given := given || format(
        $f$CASE WHEN q.fits AND (%s) THEN concat('{"action":"INSERT"' || %s, row_to_json(n_row.*), ',"old":null,"moved":true}') END AS moved_in$f$,
        array_to_string(moves, ' OR '), place
      ) || format(
        $f$CASE WHEN q.fits AND (%s) THEN concat('{"action":"DELETE"' || %s || 'null,"old":', row_to_json(o_row.*), ',"moved":true}') END AS moved_out$f$,
        array_to_string(moves, ' OR '), place
      );
    END IF;
  ELSE
    changed := format('(SELECT %s%s)', realtime.capture_side(watch, sides[1], changed_rows), check_types);
    given := channels || format(
      CASE operation
        WHEN 'INSERT' THEN
          $f$CASE WHEN %s THEN concat('{"action":"INSERT"' || %s, row_to_json(n_row.*), ',"old":null}') END AS data$f$
        ELSE $f$CASE WHEN %s THEN concat('{"action":"DELETE"' || %s || 'null,"old":', row_to_json(o_row.*), '}') END AS data$f$
      END, fits, place
    );
  END IF;
  IF in_doubt THEN
    given := given || (realtime.capture_subject(watch, sides) || ' AS subject');
  END IF;
  changed := format('(SELECT %s FROM %s q%s%s)', array_to_string(given, ', '), changed,
    (SELECT string_agg(realtime.capture_row(watch, u.side), '' ORDER BY u.side) FROM unnest(sides) u (side)),
    -- The fence makes JSON that goes to several channels be printed once.
    CASE WHEN cardinality(news) > 1 THEN ' OFFSET 0' ELSE '' END);
  -- All columns, in their order, which spares the server a step that would put them so.
  RETURN format('INSERT INTO realtime.outbox (xid, lsn, channel, data, key, watch, subject, fault, at) '
    'SELECT %s, pg_current_wal_insert_lsn(), e.channel, e.data, NULL::text, %s, %s, NULL::text, clock_timestamp() '
    'FROM %s p CROSS JOIN LATERAL (%s) e (channel, data)',
    xid, watch.number, CASE WHEN in_doubt THEN 'p.subject' ELSE 'NULL::text[]' END,
    changed, realtime.capture_branches(operation, news, olds));
END;
$$;
--> statement-breakpoint
-- What captures one operation of a table now, and what asks whether its types are others than those it was written for.
-- NULL where the table is not watched. For a trigger function that is not current, or that was restored from a dump.
CREATE FUNCTION realtime.capture_now(target oid, operation text, OUT command text, OUT doubt text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT realtime.capture_statement(w, operation, '$1', '$2', true),
    format('SELECT NOT %s', realtime.capture_types(w, CASE operation WHEN 'DELETE' THEN 'old_rows' ELSE 'new_rows' END))
  FROM realtime.watched w WHERE w.target = capture_now.target::regclass AND cardinality(w.channels) > 0
$$;
--> statement-breakpoint
-- Tells channels of a watch, all of them or these, that something of it could not be captured, and why. Answers the number
-- of outbox rows.
CREATE FUNCTION realtime.capture_fault(target oid, reason text, channels text[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  written bigint;
BEGIN
  INSERT INTO realtime.outbox (xid, lsn, channel, watch, fault)
  SELECT pg_current_xact_id(), pg_current_wal_insert_lsn(), c.channel, w.number, left(reason, 500)
  FROM realtime.watched w CROSS JOIN unnest(coalesce(capture_fault.channels, w.channels)) c (channel)
  WHERE w.target = capture_fault.target::regclass;
  GET DIAGNOSTICS written = ROW_COUNT;
  RETURN written;
END;
$$;
--> statement-breakpoint
-- Whether a statement that moves a row to another partition is a MERGE: an UPDATE captures such rows itself. Nothing but
-- its text tells which it is. `context` is that of the row's trigger. Answers `none`; `moves` for a MERGE, and `inserts` for
-- one that inserts rows too; `doubt` where it cannot be known. No literal has a backslash, which a writer's session may
-- take for an escape.
CREATE FUNCTION realtime.move_kind(context text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  callers text := substr(context, nullif(strpos(context, chr(10)), 0) + 1);
  -- NULL where it is not known: a function in SQL, or EXECUTE of a prepared statement.
  statement text := CASE WHEN callers IS NULL THEN nullif(current_query(), '')
    ELSE substring(callers FROM '^SQL statement "(.*?)"(?:[[:cntrl:]](?:PL/|SQL )|$)') END;
  -- Without the comments before it.
  code text;
BEGIN
  IF statement ~* '[[:<:]]execute[[:>:]]' THEN
    statement := NULL;
  END IF;
  -- What looks like the end of the statement may be a part of a comment or of a literal, which is open there.
  IF callers IS NOT NULL
    AND regexp_replace(statement, '/[*].*?[*]/|''[^'']*''|--[^' || chr(10) || ']*' || chr(10), '', 'g') ~ '/[*]|--|''' THEN
    statement := NULL;
  END IF;
  IF statement !~* '[[:<:]]merge[[:>:]]' THEN
    RETURN 'none';
  END IF;
  code := regexp_replace(statement, '^([[:space:]]|/[*]([^*]|[*]+[^*/])*[*]+/|--[^' || chr(10) || ']*' || chr(10) || ')+', '');
  RETURN CASE
    WHEN statement IS NULL OR code !~* '^(merge|with)[[:>:]]'
      OR regexp_replace(code, '[[:<:]]then[[:space:]]+update[[:>:]]', '', 'gi') ~* '[[:<:]]update[[:>:]]' THEN 'doubt'
    WHEN code ~* '[[:<:]]then[[:space:]]+insert[[:>:]]' THEN 'inserts'
    ELSE 'moves'
  END;
END;
$$;
--> statement-breakpoint
-- What captures one row that a MERGE moves to another partition; NULL where the table is not watched.
CREATE FUNCTION realtime.capture_move(target oid, operation text, OUT command text, OUT place text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT replace(realtime.capture_statement(w, operation, '$1', '$2', true),
      CASE operation WHEN 'DELETE' THEN 'old_rows r' ELSE 'new_rows r' END, '(SELECT ($3).*) r'),
    ',"schema":' || to_json(n.nspname::text)::text || ',"table":' || to_json(c.relname::text)::text || ',"data":'
  FROM realtime.watched w JOIN pg_class c ON c.oid = w.target JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE w.target = capture_move.target::regclass AND cardinality(w.channels) > 0
$$;
--> statement-breakpoint
-- A truncated table: nobody can tell its rows any more, so each of its channels is told. A template stands for all those
-- that it has made. Answers the number of outbox rows.
CREATE FUNCTION realtime.capture_truncate(target oid, place text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  written bigint;
BEGIN
  INSERT INTO realtime.outbox (xid, lsn, watch, subject, channel, data)
  SELECT pg_current_xact_id(), pg_current_wal_insert_lsn(), w.number, ARRAY[w.number::text, NULL, NULL, NULL, NULL, pg_trigger_depth()::text],
    c.channel, '{"action":"TRUNCATE"' || place || 'null,"old":null}'
  FROM realtime.watched w CROSS JOIN unnest(w.channels) c (channel) WHERE w.target = capture_truncate.target::regclass;
  GET DIAGNOSTICS written = ROW_COUNT;
  RETURN written;
END;
$$;
--> statement-breakpoint
-- The doorbell. The relay holds this advisory lock exclusively while it sleeps; a writer that cannot share it rings. A
-- writer that can is noticed by the relay, which cannot fall asleep before that transaction ends. So writers notify
-- only while the relay sleeps: commits that notify queue one behind another. Two keys, so that an application's lock
-- on one big number is never met; the trigger functions repeat these lines, as a call costs.
CREATE FUNCTION realtime.ring() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(1937006946, 1) THEN
    PERFORM realtime.wake();
  END IF;
END;
$$;
--> statement-breakpoint
-- Notifies the sleeping relay at the commit, unless that could harm the writer: a transaction that has notified cannot be
-- prepared for a two-phase commit, and a commit fails once the queue of notifications is full. The relay looks by itself
-- in these cases. ALTER DATABASE ... SET sobranie.notify = on (or off) decides otherwise.
CREATE FUNCTION realtime.wake() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF realtime.writers_notify() AND pg_notification_queue_usage() < 0.5 THEN
    PERFORM pg_notify('realtime_wake', '');
  END IF;
END;
$$;
--> statement-breakpoint
CREATE FUNCTION realtime.writers_notify() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE current_setting('sobranie.notify', true) WHEN 'on' THEN true WHEN 'off' THEN false
    ELSE current_setting('max_prepared_transactions') = '0' END
$$;
--> statement-breakpoint
-- The beginning of the body for a partitioned table: what a MERGE changes of it, which no transition table tells.
CREATE FUNCTION realtime.capture_moves(watch realtime.watched) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $body$
  SELECT CASE WHEN (SELECT c.relkind FROM pg_class c WHERE c.oid = watch.target) = 'p' THEN format($move$  <<moves>>
  DECLARE
    move record;
    kind text;
    reason text;
    context text;
  BEGIN
    marks := current_setting('sobranie.marks', true);
    -- Where a MERGE has inserted a row, the server tells that one in place of those that it updates afterwards.
    IF TG_LEVEL = 'STATEMENT' AND TG_OP = 'UPDATE' AND current_setting('server_version_num')::integer >= 150000
      AND marks ~ '(^|[ !])((%2$s)?@[0-9A-F/]+[.])?INSERT( !)? %2$s@[0-9A-F/]+[.]UPDATE( !)?$' THEN
      GET DIAGNOSTICS context = PG_CONTEXT;
      IF realtime.move_kind(context) <> 'none' AND EXISTS (SELECT FROM new_rows) THEN
        PERFORM realtime.unmark('%2$s');
        captured := realtime.capture_fault(%1$s, 'a MERGE, or what may have been one, inserted and updated rows of a partitioned table');
        PERFORM realtime.ring();
        RETURN NULL;
      END IF;
    END IF;
    IF TG_LEVEL = 'ROW' THEN
      -- A statement is of one kind for all its rows. Its text, which may name each of them, is read for the first alone.
      kind := current_setting('sobranie.moved', true);
      IF marks ~ '[A-Z]' AND starts_with(kind, marks || '=') THEN
        kind := substr(kind, length(marks) + 2);
      ELSE
        GET DIAGNOSTICS context = PG_CONTEXT;
        kind := realtime.move_kind(context);
        context := set_config('sobranie.moved', marks || '=' || kind, true);
      END IF;
      IF kind = 'none' OR TG_OP = 'INSERT' AND kind <> 'moves' THEN
        RETURN NULL;
      END IF;
      captured := 0;
      IF kind = 'doubt' THEN
        reason := 'rows were moved to another partition by a statement that may have been a MERGE';
      ELSE
        BEGIN
          SELECT * INTO move FROM realtime.capture_move(%1$s, TG_OP);
          IF move.command IS NULL THEN
            RETURN NULL;
          ELSIF TG_OP = 'DELETE' THEN
            EXECUTE move.command USING pg_current_xact_id(), move.place, OLD;
          ELSE
            EXECUTE move.command USING pg_current_xact_id(), move.place, NEW;
          END IF;
          GET DIAGNOSTICS captured = ROW_COUNT;
        EXCEPTION WHEN OTHERS THEN
          reason := SQLERRM;
        END;
      END IF;
      -- Once for all rows of the statement.
      IF reason IS NOT NULL AND TG_OP = 'DELETE' AND current_setting('sobranie.moved_fault', true) IS DISTINCT FROM marks THEN
        captured := realtime.capture_fault(%1$s, reason);
        marks := set_config('sobranie.moved_fault', marks, true);
      END IF;
      IF captured > 0 THEN
        PERFORM realtime.ring();
      END IF;
      RETURN NULL;
    END IF;
  END;

$move$, watch.target::oid, watch.number) ELSE '' END
$body$;
--> statement-breakpoint
-- The body of a table's trigger function. It begins with the common case: one statement, nothing nested, the table as it
-- was. A transaction pays for each expression that it meets first, mostly more than for the evaluation, so there are few
-- of them. What follows serves all cases. Only the statement that runs is planned.
CREATE FUNCTION realtime.capture_body(watch realtime.watched) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
  named record;
  place text;
  is_partitioned boolean;
  -- Computed values can fail, as the table itself does not hold them. The attempt costs a subtransaction that writes
  -- nothing, so it takes no transaction id.
  computed text;
  -- Asks whether this function is right for the table as it is.
  is_current text;
BEGIN
  SELECT c.relname::text AS table_name, n.nspname::text AS schema_name INTO named
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = watch.target;
  is_partitioned := (SELECT c.relkind FROM pg_class c WHERE c.oid = watch.target) = 'p';
  place := format('%L::text',
    ',"schema":' || to_json(named.schema_name)::text || ',"table":' || to_json(named.table_name)::text || ',"data":');
  SELECT string_agg(c.value, ', ') INTO computed FROM realtime.captured_columns(watch) c WHERE c.value LIKE '(%';
  is_current := format('TG_RELID = %s AND realtime.is_current(%L, %s)', watch.target::oid, realtime.shape(watch.target), (
    SELECT string_agg(format('%L::regclass', r.relation::oid), ', ' ORDER BY r.place)
    FROM unnest(realtime.relations_within(watch.target)) WITH ORDINALITY r (relation, place)
  ));
  RETURN format($function$
#variable_conflict use_column
DECLARE
  is_current boolean;
  marks text;
  captured bigint;
BEGIN
%3$s%4$s  IF %2$s
    AND current_setting('sobranie.marks', true) COLLATE "C" >= '0' AND current_setting('transaction_isolation') = 'read committed'
    AND set_config('sobranie.marks', ' ', true) IS NOT NULL THEN
    IF TG_OP = 'INSERT' THEN
      %6$s;
    ELSIF TG_OP = 'UPDATE' THEN
      %14$s%7$s;%15$s
    ELSIF TG_OP = 'DELETE' THEN
      %8$s;
    ELSE
      PERFORM realtime.capture_truncate(TG_RELID, %1$s);
    END IF;
    IF FOUND AND NOT pg_try_advisory_xact_lock_shared(1937006946, 1) THEN
      PERFORM realtime.wake();
    END IF;
    -- NULL here, and no expression.
    RETURN NEW;
  END IF;

  -- Named, so that a column of the table that has a variable's name does no harm.
  <<statement>>
  DECLARE
    xid xid8 := pg_current_xact_id();
    place text :=
      ',"schema":' || to_json(TG_TABLE_SCHEMA::text)::text || ',"table":' || to_json(TG_TABLE_NAME::text)::text || ',"data":';
    began pg_lsn;
    mark pg_lsn;
    now_written record;
    in_doubt boolean;
  BEGIN
    captured := 0;
    is_current := %2$s;
    began := pg_current_wal_insert_lsn();
    mark := realtime.unmark('%5$s');
    IF TG_OP = 'TRUNCATE' THEN
      captured := realtime.capture_truncate(TG_RELID, place);
    ELSE
      -- A snapshot may be older than the table's columns, which is_current then does not know.
      IF is_current AND current_setting('transaction_isolation') <> 'read committed' THEN
        IF TG_OP = 'DELETE' THEN
          is_current := %12$s;
        ELSE
          is_current := %13$s;
        END IF;
      END IF;
      IF is_current THEN
        IF TG_OP = 'INSERT' THEN
          %9$s;
        ELSIF TG_OP = 'UPDATE' THEN
          %10$s;
        ELSE
          %11$s;
        END IF;
        GET DIAGNOSTICS captured = ROW_COUNT;
      ELSE
        BEGIN
          SELECT * INTO now_written FROM realtime.capture_now(TG_RELID, TG_OP);
          IF now_written.command IS NOT NULL THEN
            EXECUTE now_written.command USING xid, place;
            GET DIAGNOSTICS captured = ROW_COUNT;
            IF captured = 0 THEN
              EXECUTE now_written.doubt INTO in_doubt;
              IF in_doubt THEN
                captured := realtime.capture_fault(TG_RELID, 'the table was altered while a transaction that began before was open');
              END IF;
            END IF;
          END IF;
        EXCEPTION WHEN OTHERS THEN
          captured := realtime.capture_fault(TG_RELID, SQLERRM);
        END;
      END IF;
    END IF;
    IF captured > 0 THEN
      IF mark IS NOT NULL THEN
        PERFORM realtime.reorder(%5$s, xid, mark, began);
      END IF;
      PERFORM realtime.ring();
    END IF;
    IF captured > 0%16$s THEN
      PERFORM realtime.note_captured();
    END IF;
  END;
  RETURN NULL;
END;
$function$,
    place, CASE WHEN computed IS NULL THEN is_current ELSE 'is_current' END, realtime.capture_moves(watch),
    CASE WHEN computed IS NULL THEN '' ELSE format($probe$  is_current := %2$s;
  IF is_current THEN
    BEGIN
      IF TG_OP IN ('INSERT', 'UPDATE') THEN
        PERFORM count(num_nulls(%1$s)) FROM new_rows r;
      END IF;
      IF TG_OP IN ('UPDATE', 'DELETE') THEN
        PERFORM count(num_nulls(%1$s)) FROM old_rows r;
      END IF;
    EXCEPTION WHEN OTHERS THEN
      is_current := false;
    END;
  END IF;
$probe$, computed, is_current) END,
    watch.number,
    realtime.capture_statement(watch, 'INSERT', 'pg_current_xact_id()', place, false),
    realtime.capture_statement(watch, 'UPDATE', 'pg_current_xact_id()', place, false),
    realtime.capture_statement(watch, 'DELETE', 'pg_current_xact_id()', place, false),
    realtime.capture_statement(watch, 'INSERT', 'statement.xid', 'statement.place', true),
    realtime.capture_statement(watch, 'UPDATE', 'statement.xid', 'statement.place', true),
    realtime.capture_statement(watch, 'DELETE', 'statement.xid', 'statement.place', true),
    realtime.capture_types(watch, 'old_rows'), realtime.capture_types(watch, 'new_rows'),
    -- Mostly it is one row, whose two sides need no pairing. Of a partitioned table a side may be missing.
    CASE WHEN NOT is_partitioned THEN format($alone$%s;
      IF NOT FOUND THEN
        $alone$, realtime.capture_statement(watch, 'UPDATE', 'pg_current_xact_id()', place, false, true)) ELSE '' END,
    CASE WHEN NOT is_partitioned THEN '
      END IF;' ELSE '' END,
    -- Rows that a MERGE moved were captured one by one.
    CASE WHEN is_partitioned THEN ' OR true' ELSE '' END
  );
END;
$body$;
--> statement-breakpoint
-- Writes a table's trigger function, if it is not as it has to be. The table's owner may put it on the table, nobody else
-- on another one, whatever the default privileges say. Nothing of the table is locked.
CREATE FUNCTION realtime.define_capture(watch realtime.watched) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  name text := format('realtime.capture_%s()', watch.number);
  owner text;
  settings text := realtime.printing_settings(ARRAY(
    SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = watch.target AND a.attnum > 0 AND NOT a.attisdropped
  ));
  body text := CASE
    -- Where nothing is watched any more, and the triggers could not be dropped yet.
    WHEN cardinality(watch.channels) = 0 THEN format('BEGIN PERFORM realtime.unmark(%L); RETURN NULL; END', watch.number)
    WHEN realtime.is_too_wide(watch.target) THEN format('BEGIN PERFORM realtime.unmark(%L), '
      'realtime.capture_fault(TG_RELID, ''the table has more than 800 columns''), realtime.ring(); RETURN NULL; END',
      watch.number)
    ELSE realtime.capture_body(watch) END;
BEGIN
  EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER '
    'SET search_path = pg_catalog, pg_temp SET jit = off%s AS %L', name, settings, body);
  PERFORM realtime.close_function(name::regprocedure);
  SELECT r.rolname::text INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = watch.target;
  IF owner IS NOT NULL THEN
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', name, owner);
  END IF;
END;
$$;
--> statement-breakpoint
-- Takes a function from everybody but its owner: from PUBLIC, and from whom ALTER DEFAULT PRIVILEGES gave it to.
CREATE FUNCTION realtime.close_function(function regprocedure) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  grantee oid;
BEGIN
  FOR grantee IN
    SELECT DISTINCT a.grantee
    FROM pg_proc p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    WHERE p.oid = function AND a.grantee <> p.proowner
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', function,
      CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END);
  END LOOP;
END;
$$;
