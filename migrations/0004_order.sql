-- Nested statements in the order in which they changed each row.
--
-- A statement's rows are captured at its end. What its triggers, cascades and functions changed meanwhile was captured
-- before: an AFTER trigger that completes the inserted row would be seen before the insert. So each statement on a watched
-- table marks its beginning, and puts what was captured since then behind its own rows where both are about the same
-- row. Order between different rows stays as it was captured.

-- BEFORE each statement of a watched table: notes that it began, in a setting that ends with the transaction, the innermost
-- statement last: `!INSERT 9@0/16B3790.UPDATE`. The number of the watch and the end of the write-ahead log tell which it is
-- and what came after. The first statement of a transaction needs neither: there is no other, and nothing came before. So
-- it notes its operation alone, as a transaction pays for each function of an expression that it meets.
--
-- What is captured leaves the setting a single space where no mark is left: nothing that is captured later in the
-- transaction is the first. Several marks, and what is left of them, begin with `!`. So a letter or digit begins the mark of
-- one statement, with nothing nested. The setting is empty where somebody has reset it.
--
-- A caller who writes nonsense there puts nothing but its own transaction's changes at stake. Where a trigger that takes
-- marks away is disabled, they pile up: the setting has an end, which is far beyond what statements nest.
CREATE FUNCTION realtime.mark() RETURNS trigger
LANGUAGE plpgsql VOLATILE
-- No search_path of its own, which costs each statement as much as the rest: all names are written with their schema.
AS $$
DECLARE
  marks pg_catalog.text;
BEGIN
  IF pg_catalog.current_setting('sobranie.marks', true) OPERATOR(pg_catalog.<>) '' THEN
    -- Behind a single space it is alone.
    marks := pg_catalog.set_config('sobranie.marks', pg_catalog.replace(pg_catalog.concat('!',
      pg_catalog."right"(pg_catalog.current_setting('sobranie.marks', true), 2000), ' ', TG_ARGV[0], '@',
      pg_catalog.pg_current_wal_insert_lsn(), '.', TG_OP), '!  ', ''), true);
  ELSE
    marks := pg_catalog.set_config('sobranie.marks', TG_OP, true);
  END IF;
  -- NULL here, and no expression.
  RETURN NEW;
END;
$$;
--> statement-breakpoint
-- Takes the last mark of this watch away. Answers where the statement began, if others were captured since then; more than
-- any place when that is not known, as somebody has reset the session's settings. What began first learns here where the
-- first nested statement began: nothing was captured in between.
CREATE FUNCTION realtime.unmark(number text, OUT mark pg_lsn)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  marks text := ltrim(coalesce(current_setting('sobranie.marks', true), ''), ' !');
  first_nested text;
  parts text[];
BEGIN
  IF marks !~ '^((@[0-9A-F]{1,8}/[0-9A-F]{1,8}[.])?[A-Z]+( !)?)?( ?[0-9]+@[0-9A-F]{1,8}/[0-9A-F]{1,8}[.A-Z]*( !)?)*$' THEN
    marks := '';
  END IF;
  first_nested := substring(marks FROM '^[A-Z]+(?: !)? [0-9]+@([0-9A-F/]+)');
  parts := coalesce(
    regexp_match(marks, '^(|.* )' || number || '@([0-9A-F]{1,8}/[0-9A-F]{1,8})[.A-Z]*( !)?((?: [0-9].*)?)$'),
    -- What has no number began first: all others have theirs.
    regexp_match(marks, '^()(?:@([0-9A-F]{1,8}/[0-9A-F]{1,8})[.])?[A-Z]+( !)?((?: [0-9].*)?)$')
  );
  IF parts IS NULL THEN
    mark := 'FFFFFFFF/FFFFFFFF';
  ELSE
    marks := rtrim(parts[1]) || parts[4];
    IF parts[3] IS NOT NULL THEN
      mark := coalesce(parts[2], first_nested, '0/0')::pg_lsn;
    END IF;
  END IF;
  IF first_nested IS NOT NULL AND marks ~ '^[A-Z]' THEN
    marks := '@' || first_nested || '.' || marks;
  END IF;
  marks := ltrim(marks);
  marks := set_config('sobranie.marks', CASE WHEN marks = '' THEN ' ' ELSE '!' || marks END, true);
END;
$$;
--> statement-breakpoint
-- Notes for the statements that go on that something was captured since they began: their marks get ` !`.
CREATE FUNCTION realtime.note_captured() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  marks text := current_setting('sobranie.marks', true);
BEGIN
  IF marks <> ' ' THEN
    marks := set_config('sobranie.marks',
      regexp_replace(marks, '(^!+[A-Z]+|@[0-9A-F/]+[.A-Z]*)( !)?', E'\\1 !', 'g'), true);
  END IF;
END;
$$;
--> statement-breakpoint
-- How many of the changes of nested statements came before a change that their statement made itself, and whether that is a
-- guess. `subject` is that of the change, as capture_subject writes it. The arrays are the nested changes of its keys, in
-- order: their places, and their subjects.
--
-- The change stands where the rows before and after it continue each other. Where several places do: an update or delete
-- comes first, as the server refuses it once the row was changed.
CREATE FUNCTION realtime.changes_before(
  subject text[], is_alone boolean, places bigint[], old_keys text[], new_keys text[], old_images text[],
  new_images text[], depths text[], OUT place bigint, OUT is_guess boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  count CONSTANT integer := cardinality(places);
  old_key CONSTANT text := subject[2];
  new_key CONSTANT text := subject[3];
  -- What these keys stand for, after so many nested changes; empty: nothing, NULL: not known.
  old_state text;
  new_state text;
  is_fit boolean;
  fitting integer[] := '{}';
  by_trigger boolean;
  kinds integer[];
BEGIN
  FOR i IN 0..count LOOP
    IF old_key = old_keys[i] OR old_key = new_keys[i] THEN
      old_state := CASE WHEN old_key = new_keys[i] THEN new_images[i] ELSE '' END;
    END IF;
    IF new_key = old_keys[i] OR new_key = new_keys[i] THEN
      new_state := CASE WHEN new_key = new_keys[i] THEN new_images[i] ELSE '' END;
    END IF;
    is_fit := (old_key IS NULL OR coalesce(old_state = subject[4], true))
      AND (new_key IS NULL OR new_key = old_key OR coalesce(new_state = '', true));
    IF new_key = old_keys[i + 1] OR new_key = new_keys[i + 1] THEN
      is_fit := is_fit AND coalesce(new_key = old_keys[i + 1] AND old_images[i + 1] = subject[5], false);
    ELSIF old_key = old_keys[i + 1] THEN
      is_fit := false;
    END IF;
    IF is_fit THEN
      fitting := fitting || i;
    END IF;
  END LOOP;
  is_guess := fitting = '{}';
  place := coalesce(places[fitting[1]], 0);
  IF old_key IS NULL AND cardinality(fitting) > 1 THEN
    -- A row that looks the same was replaced: either the one that was inserted went, or another one before it. The statement
    -- itself, in a WITH or a function that it calls, can do the latter alone, and triggers that run after inserts the
    -- former. A row that is the only one leaves no doubt without such triggers. It is the last of the changes in between
    -- that makes the row go; what triggers did to it before may have changed nothing.
    by_trigger := depths[fitting[1] + 1]::integer > subject[6]::integer
      AND depths[fitting[cardinality(fitting)]]::integer > subject[6]::integer;
    kinds := ARRAY(
      -- Of all events: an upsert or a merge runs those of several.
      SELECT DISTINCT t.tgtype & 2
      FROM pg_trigger t JOIN realtime.watched w ON w.target::oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
      WHERE w.number = subject[1]::integer AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 28 <> 0
        AND p.pronamespace <> 'realtime'::regnamespace
    );
    IF NOT by_trigger OR kinds <> '{0}' THEN
      place := coalesce(places[fitting[cardinality(fitting)]], 0);
      is_guess := NOT is_alone OR (by_trigger AND 0 = ANY (kinds));
    END IF;
  END IF;
END;
$$;
--> statement-breakpoint
-- Puts the rows that a statement has captured, from `began` on, before those that were captured since its `mark`, where
-- both are about the same row. Rows that move change places with one another, so that none comes behind what other
-- transactions wrote after this one.
--
-- None comes before what they wrote earlier, either: a row of the statement goes no further than to the first nested change of
-- itself, or of a row that the statement changed after it. It was changed before that one, so its lock was held. Where it
-- has nothing to precede it stays, since the statement may have waited for its lock in between.
--
-- Under SERIALIZABLE the relay does it, before it takes any row of the transaction. Whoever reads the outbox there is in
-- conflict with all who write to it, and most transactions would fail. `ended` is where the statement ended, for the relay.
CREATE FUNCTION realtime.reorder(watch integer, xid xid8, mark pg_lsn, began pg_lsn, ended pg_lsn DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
-- As many rows as the statements changed, of which the planner knows nothing; nor do the statistics of a queue. The caller
-- may have forbidden the rest: an application its session, and the relay, which reads the outbox by its order.
SET enable_bitmapscan = on
SET enable_hashjoin = on
SET enable_indexscan = on
SET enable_nestloop = off
SET enable_seqscan = off
SET enable_sort = on
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  own record;
  guess record;
  place bigint;
  first_later bigint;
  -- Rows of the statement that nested changes have to do with: behind which of these each comes, and before which.
  own_rows pg_lsn[] := '{}';
  own_places bigint[] := '{}';
  later_places bigint[] := '{}';
  guessed text[] := '{}';
  is_lost boolean := mark > began;
BEGIN
  IF ended IS NULL THEN
    ended := pg_current_wal_insert_lsn();
    IF current_setting('transaction_isolation') = 'serializable' THEN
      INSERT INTO realtime.unordered (xid, ended, watch, mark, began)
      VALUES (reorder.xid, reorder.ended, reorder.watch, reorder.mark, reorder.began);
      RETURN;
    END IF;
  END IF;
  IF is_lost THEN
    -- Without its trigger no statement is marked: nothing was reset.
    IF NOT EXISTS (
      SELECT FROM realtime.watched w JOIN pg_trigger t ON t.tgrelid = w.target AND t.tgname = 'zz_realtime_mark'
      WHERE w.number = reorder.watch AND t.tgenabled <> 'D'
    ) THEN
      RETURN;
    END IF;
    mark := '0/0';
  END IF;
  -- A subject without keys is the whole table's. Without a subject, nobody knows what it is about. Each key counts once,
  -- as any two changes of a table have `*` in common.
  IF NOT EXISTS (
    SELECT FROM (
      SELECT DISTINCT n.subject[1] AS watch, nk.key, n.subject[2:3] = '{NULL,NULL}' AS is_whole
      FROM realtime.outbox n CROSS JOIN LATERAL unnest(n.subject[2:3] || '*'::text) nk (key)
      WHERE n.xid = reorder.xid AND n.lsn >= mark AND n.lsn < began
    ) n JOIN (
      SELECT DISTINCT o.subject[1] AS watch, ok.key, o.subject[2:3] = '{NULL,NULL}' AS is_whole
      FROM realtime.outbox o CROSS JOIN LATERAL unnest(o.subject[2:3] || '*'::text) ok (key)
      WHERE o.xid = reorder.xid AND o.lsn >= began AND o.lsn < ended
    ) o ON o.watch = n.watch AND o.key = n.key
    WHERE n.key <> '*' OR o.is_whole OR n.is_whole
  ) AND NOT (is_lost AND EXISTS (
    SELECT FROM realtime.outbox n
    WHERE n.xid = reorder.xid AND n.lsn < began AND n.watch = reorder.watch AND n.subject IS NULL AND n.fault IS NULL
  )) THEN
    RETURN;
  END IF;
  IF is_lost THEN
    INSERT INTO realtime.outbox (xid, lsn, channel, watch, fault)
    SELECT reorder.xid, pg_current_wal_insert_lsn(), o.channel, reorder.watch,
      'the settings of the session were reset while a statement and its triggers changed the same rows'
    FROM (
      SELECT DISTINCT o.channel FROM realtime.outbox o WHERE o.xid = reorder.xid AND o.lsn >= began AND o.lsn < ended
    ) o;
    RETURN;
  END IF;

  -- Changes of keys that nested statements changed too.
  FOR own IN
    WITH nested AS (
      SELECT m.subject, min(m.place) AS first, max(m.place) AS place
      FROM (
        -- A change that went to several channels counts once.
        SELECT n.*, count(*) FILTER (WHERE n.is_new) OVER (ORDER BY n.place) AS change
        FROM (
          SELECT n.subject, row_number() OVER (ORDER BY n.lsn) AS place,
            n.subject IS DISTINCT FROM lag(n.subject) OVER (ORDER BY n.lsn) AS is_new
          FROM realtime.outbox n WHERE n.xid = reorder.xid AND n.lsn >= mark AND n.lsn < began
        ) n
      ) m GROUP BY m.change, m.subject
    ),
    -- Materialized, both: the planner, which knows of no rows, would go through one side again for each row of the other.
    nested_keys AS MATERIALIZED (
      SELECT n.subject, n.first, n.place, n.subject[1] AS watch, nk.key
      FROM nested n CROSS JOIN LATERAL unnest(n.subject[2:3]) nk (key)
    ),
    own_keys AS MATERIALIZED (
      SELECT o.lsn, o.subject, o.channel, o.subjects, o.subject[1] AS watch, ok.key
      FROM (
        SELECT o.*, count(*) FILTER (WHERE o.is_new) OVER () AS subjects
        FROM (
          SELECT o.lsn, o.subject, o.channel, o.subject IS DISTINCT FROM lag(o.subject) OVER (ORDER BY o.lsn) AS is_new
          FROM realtime.outbox o WHERE o.xid = reorder.xid AND o.lsn >= began AND o.lsn < ended
        ) o
      ) o
      CROSS JOIN LATERAL unnest(o.subject[2:3]) ok (key)
    )
    SELECT c.lsn, c.subject, c.channel, c.subjects = 1 AS is_alone, array_agg(c.first ORDER BY c.place) AS firsts,
      array_agg(c.place ORDER BY c.place) AS places,
      array_agg(c.nested[2] ORDER BY c.place) AS old_keys, array_agg(c.nested[3] ORDER BY c.place) AS new_keys,
      array_agg(c.nested[4] ORDER BY c.place) AS old_images, array_agg(c.nested[5] ORDER BY c.place) AS new_images,
      array_agg(c.nested[6] ORDER BY c.place) AS depths
    FROM (
      SELECT DISTINCT o.lsn, o.subject, o.channel, o.subjects, n.first, n.place, n.subject AS nested
      FROM own_keys o JOIN nested_keys n ON n.watch = o.watch AND n.key = o.key
    ) c
    GROUP BY c.lsn, c.subject, c.channel, c.subjects
  LOOP
    place := 0;
    -- One that the first of them continues comes just before it. Rows without a key may be there several times: one more
    -- was never in the way.
    IF (own.subject[2] = own.subject[4] OR own.subject[3] = own.subject[5]) IS NOT true
      AND (own.subject[2] = own.subject[3] AND own.old_keys[1] = own.subject[3] AND own.old_images[1] = own.subject[5]) IS NOT true
    THEN
      guess := realtime.changes_before(
        own.subject, own.is_alone, own.places, own.old_keys, own.new_keys, own.old_images, own.new_images,
        own.depths
      );
      place := guess.place;
      IF guess.is_guess THEN
        guessed := guessed || own.channel;
      END IF;
    END IF;
    own_rows := own_rows || own.lsn;
    own_places := own_places || place;
    first_later := own.firsts[coalesce(array_position(own.places, place), 0) + 1];
    later_places := later_places || first_later;
  END LOOP;

  -- Each place is that of the nested change behind which a row comes.
  WITH nested AS (
    SELECT n.lsn, row_number() OVER (ORDER BY n.lsn) AS place, 0 AS side, 0::bigint AS turn, n.watch,
      n.subject[2:3] = '{NULL,NULL}' AS is_whole
    FROM realtime.outbox n WHERE n.xid = reorder.xid AND n.lsn >= mark AND n.lsn < began
  ), bounds AS (
    -- A whole table and each of its rows have to do with one another.
    SELECT count(*) AS places, min(n.place) FILTER (WHERE n.watch = reorder.watch) AS any_row,
      min(n.place) FILTER (WHERE n.watch = reorder.watch AND n.is_whole) AS whole
    FROM nested n
  ), own AS (
    SELECT o.lsn, o.subject, coalesce(l.place, 0) AS earliest, least(l.later,
        CASE WHEN o.subject[2:3] = '{NULL,NULL}' THEN (SELECT b.any_row FROM bounds b) ELSE (SELECT b.whole FROM bounds b) END,
        (SELECT b.places + 1 FROM bounds b)
      ) - 1 AS latest
    FROM realtime.outbox o LEFT JOIN unnest(own_rows, own_places, later_places) l (lsn, place, later) ON l.lsn = o.lsn
    WHERE o.xid = reorder.xid AND o.lsn >= began AND o.lsn < ended
  ), placed AS (
    -- They stay in their order, and all come before what one of them has to precede.
    SELECT o.lsn, greatest(
        min(o.latest) OVER (ORDER BY o.lsn DESC),
        -- Where one may take the key of another, it comes behind that one.
        CASE WHEN bool_or(o.subject[2] <> o.subject[3]) OVER () THEN max(o.earliest) OVER (ORDER BY o.lsn) ELSE o.earliest END
      ) AS place, 1 AS side, row_number() OVER (ORDER BY o.lsn) AS turn
    FROM own o
  ), moved AS (
    SELECT * FROM placed
    -- What a row trigger or realtime.send has written stays: realtime.row_changes knows where.
    UNION ALL SELECT n.lsn, n.place, n.side, n.turn FROM nested n
    WHERE n.place > (SELECT min(p.place) FROM placed p) AND n.watch IS NOT NULL
  ), numbered AS (
    SELECT m.lsn, row_number() OVER (ORDER BY m.lsn) AS old_number,
      row_number() OVER (ORDER BY m.place, m.side, m.turn) AS new_number
    FROM moved m
  )
  UPDATE realtime.outbox o SET lsn = t.lsn
  FROM numbered m JOIN numbered t ON t.old_number = m.new_number
  -- The bounds spare what earlier statements of a long transaction wrote, all of which the join would read.
  WHERE o.xid = reorder.xid AND o.lsn >= mark AND o.lsn < ended AND o.lsn = m.lsn AND t.lsn <> m.lsn;

  -- A guess that is wrong would stay wrong: subscribers look anew.
  INSERT INTO realtime.outbox (xid, lsn, channel, watch, fault)
  SELECT reorder.xid, pg_current_wal_insert_lsn(), g.channel, reorder.watch,
    'a statement and its triggers replaced a row by one that looks the same'
  FROM (SELECT DISTINCT u.channel FROM unnest(guessed) u (channel)) g;
END;
$$;
