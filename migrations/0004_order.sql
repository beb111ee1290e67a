-- Nested statements in the order in which they changed each row.
--
-- A statement's rows are captured at its end. What its triggers, cascades and functions changed meanwhile was captured
-- before: an AFTER trigger that completes the inserted row would be seen before the insert. So each statement on a watched
-- table marks its beginning, and puts what was captured since then behind its own rows where both are about the same
-- row. Order between different rows stays as it was captured.

-- BEFORE each statement of a watched table: notes the number of the watch and the end of the write-ahead log, in a setting
-- that ends with the transaction: ` 7@0/16B3748 9@0/16B3790`, the innermost statement last. A caller who writes nonsense
-- there puts nothing but the order of its own transaction's changes at stake.
CREATE FUNCTION realtime.mark() RETURNS trigger
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  marks text;
BEGIN
  marks := set_config('sobranie.marks',
    concat(current_setting('sobranie.marks', true), ' ', TG_ARGV[0], '@', pg_current_wal_insert_lsn()), true);
  RETURN NULL;
END;
$$;
--> statement-breakpoint
-- Takes the last mark of this watch away. Answers where the statement began, if others were captured since then, and
-- whether this one is itself inside of another. All marks that are left get ` !`: something was captured since then.
CREATE FUNCTION realtime.unmark(number text, OUT mark pg_lsn, OUT nested boolean)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  marks text := current_setting('sobranie.marks', true);
  parts text[] := regexp_match(marks, '^(.*) ' || number || '@([0-9A-F]{1,8}/[0-9A-F]{1,8})( !)?((?: [0-9].*)?)$');
BEGIN
  IF marks !~ '^( [0-9]+@[0-9A-F]{1,8}/[0-9A-F]{1,8}( !)?)*$' THEN
    marks := '';
  ELSIF parts IS NOT NULL THEN
    marks := parts[1] || parts[4];
    IF parts[3] IS NOT NULL THEN
      mark := parts[2]::pg_lsn;
    END IF;
  END IF;
  nested := marks <> '';
  marks := set_config('sobranie.marks', regexp_replace(marks, '(@[0-9A-F/]+)( !)?', '\1 !', 'g'), true);
END;
$$;
--> statement-breakpoint
-- How many of the changes of nested statements came before an insert of the key `key` with the row `image`. `changes` are
-- the nested changes of this key, in order: their places, and their subjects as capture_subject writes them.
--
-- The insert stands where the key is absent before it and has this row after it. Before an update or delete of the same
-- key no nested change of it can be: the server refuses the statement then.
CREATE FUNCTION realtime.changes_before_insert(
  watch integer, key text, image text, places bigint[], old_keys text[], new_keys text[], old_images text[]
) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  count integer := cardinality(places);
  fitting integer[] := '{}';
  kinds integer[];
BEGIN
  FOR i IN 0..count LOOP
    IF (i = 0 OR new_keys[i] IS DISTINCT FROM key)
      AND (i = count OR (old_keys[i + 1] IS NOT DISTINCT FROM key AND old_images[i + 1] = image)) THEN
      fitting := fitting || i;
    END IF;
  END LOOP;
  IF cardinality(fitting) > 1 THEN
    -- A row replaced by one that looks the same: by triggers before the insert if there are such, else it was inserted and
    -- then deleted.
    kinds := ARRAY(
      SELECT DISTINCT t.tgtype & 2 FROM pg_trigger t JOIN realtime.watched w ON w.target::oid = t.tgrelid
      WHERE w.number = watch AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 4 = 4
        AND t.tgname NOT LIKE 'realtime\_%' AND t.tgname NOT LIKE 'zz\_realtime\_%'
    );
    IF kinds = '{0}' THEN
      RETURN coalesce(places[fitting[1]], 0);
    END IF;
  END IF;
  RETURN coalesce(places[fitting[cardinality(fitting)]], 0);
END;
$$;
--> statement-breakpoint
-- Puts the rows that a statement has captured, from `began` on, before those that were captured since its `mark`, where
-- both are about the same row. Rows that move are written again, at the end of the write-ahead log.
CREATE FUNCTION realtime.reorder(xid xid8, mark pg_lsn, began pg_lsn) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
-- As many rows as the statements changed, of which the planner knows nothing.
SET enable_nestloop = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  own record;
  later_rows pg_lsn[] := '{}';
  later_places bigint[] := '{}';
  place bigint;
BEGIN
  -- A subject without keys is the whole table's.
  IF NOT EXISTS (
    SELECT FROM realtime.outbox n CROSS JOIN LATERAL unnest(n.subject[2:3] || '*'::text) nk (key)
    JOIN (
      SELECT o.subject[1] AS watch, ok.key, o.subject[2:3] = '{NULL,NULL}' AS is_whole
      FROM realtime.outbox o CROSS JOIN LATERAL unnest(o.subject[2:3] || '*'::text) ok (key)
      WHERE o.xid = reorder.xid AND o.lsn >= began
    ) o ON o.watch = n.subject[1] AND o.key = nk.key
    WHERE n.xid = reorder.xid AND n.lsn >= mark AND n.lsn < began
      AND (nk.key <> '*' OR o.is_whole OR n.subject[2:3] = '{NULL,NULL}')
  ) THEN
    RETURN;
  END IF;

  -- Inserts of keys that nested statements changed. All others come before all nested changes.
  FOR own IN
    WITH nested AS (
      SELECT m.subject, max(m.place) AS place
      FROM (
        -- A change that went to several channels counts once.
        SELECT n.*, count(*) FILTER (WHERE n.is_new) OVER (ORDER BY n.place) AS change
        FROM (
          SELECT n.subject, row_number() OVER (ORDER BY n.lsn) AS place,
            n.subject IS DISTINCT FROM lag(n.subject) OVER (ORDER BY n.lsn) AS is_new
          FROM realtime.outbox n WHERE n.xid = reorder.xid AND n.lsn >= mark AND n.lsn < began
        ) n
      ) m GROUP BY m.change, m.subject
    )
    SELECT o.lsn, o.subject, array_agg(n.place ORDER BY n.place) AS places,
      array_agg(n.subject[2] ORDER BY n.place) AS old_keys, array_agg(n.subject[3] ORDER BY n.place) AS new_keys,
      array_agg(n.subject[4] ORDER BY n.place) AS old_images
    FROM realtime.outbox o JOIN (
      SELECT n.place, n.subject, n.subject[1] AS watch, n.subject[2] AS key FROM nested n
      UNION SELECT n.place, n.subject, n.subject[1], n.subject[3] FROM nested n
    ) n ON n.watch = o.subject[1] AND n.key = o.subject[3]
    WHERE o.xid = reorder.xid AND o.lsn >= began AND o.subject[2] IS DISTINCT FROM o.subject[3]
      -- Rows without a key may be there several times: one more was never in the way.
      AND o.subject[3] <> o.subject[5]
    GROUP BY o.lsn, o.subject
  LOOP
    place := realtime.changes_before_insert(
      own.subject[1]::integer, own.subject[3], own.subject[5], own.places, own.old_keys, own.new_keys, own.old_images
    );
    later_rows := later_rows || own.lsn;
    later_places := later_places || place;
  END LOOP;

  WITH nested AS (
    SELECT n.lsn, row_number() OVER (ORDER BY n.lsn) AS place, 0 AS side, 0::bigint AS turn
    FROM realtime.outbox n WHERE n.xid = reorder.xid AND n.lsn >= mark AND n.lsn < began
  ), own AS (
    SELECT o.lsn, max(coalesce(l.place, 0)) OVER (ORDER BY o.lsn) AS place, 1 AS side,
      row_number() OVER (ORDER BY o.lsn) AS turn
    FROM realtime.outbox o LEFT JOIN unnest(later_rows, later_places) l (lsn, place) ON l.lsn = o.lsn
    WHERE o.xid = reorder.xid AND o.lsn >= began
  ), moved AS (
    SELECT * FROM own UNION ALL SELECT n.* FROM nested n WHERE n.place > (SELECT min(o.place) FROM own o)
  ), taken AS (
    DELETE FROM realtime.outbox o USING moved m WHERE o.xid = reorder.xid AND o.lsn = m.lsn
    RETURNING o.*, m.place, m.side, m.turn
  )
  INSERT INTO realtime.outbox (xid, lsn, channel, data, key, watch, subject, fault, at)
  SELECT t.xid, pg_current_wal_insert_lsn(), t.channel, t.data, t.key, t.watch, t.subject, t.fault, t.at
  FROM (SELECT * FROM taken ORDER BY taken.place, taken.side, taken.turn) t;
END;
$$;
