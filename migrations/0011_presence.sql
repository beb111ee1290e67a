-- Who is in which channel, for all nodes: the presence store of SYNC=postgres. Unlogged: after a crash, and on a server
-- that took another's place, the tables are empty, and the nodes enter their members again.
--
-- A change of a channel's members takes the lock of the channel's row, counts the change in it, and notifies. So changes
-- have their numbers in the order of their commits, and notifications arrive in that order.
--
-- What is compared is of one collation. Arguments of a function take over one another's, so a channel would otherwise
-- hand its collation on to a connection, whose index could not be used then.
CREATE UNLOGGED TABLE realtime.presence_channels (
  channel text COLLATE "C" PRIMARY KEY,
  -- Names this memory of the channel: after it was forgotten or lost, versions begin again under another one.
  epoch text NOT NULL,
  version bigint NOT NULL,
  -- How many there are: to count them takes too long for each that comes.
  members integer DEFAULT 0 NOT NULL,
  -- Since when the channel has no member. It is forgotten a minute later.
  empty_since timestamp with time zone
) WITH (
  -- Rows are updated in place, again and again: room beside each keeps the index out of it.
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000
);
--> statement-breakpoint
CREATE INDEX presence_channels_empty ON realtime.presence_channels USING btree (empty_since) WHERE empty_since IS NOT NULL;
--> statement-breakpoint
CREATE UNLOGGED TABLE realtime.presence_members (
  channel text COLLATE "C" NOT NULL,
  connection text COLLATE "C" NOT NULL,
  -- In the order in which they came.
  place bigint GENERATED ALWAYS AS IDENTITY,
  -- The node that entered it.
  node text COLLATE "C" NOT NULL,
  -- Null for a connection without a user, which is alone.
  "user" text COLLATE "C",
  -- Its connection is gone, and its user may be on the way.
  parts boolean DEFAULT false NOT NULL,
  -- Unix milliseconds.
  since bigint NOT NULL,
  -- The member as clients get it, in JSON. As text: nothing here needs to look into it.
  member text NOT NULL,
  CONSTRAINT presence_members_pkey PRIMARY KEY (channel, connection)
) WITH (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000
);
--> statement-breakpoint
CREATE INDEX presence_members_user ON realtime.presence_members USING btree (channel, "user", place) WHERE "user" IS NOT NULL;
--> statement-breakpoint
CREATE INDEX presence_members_node ON realtime.presence_members USING btree (node, channel);
--> statement-breakpoint
CREATE UNLOGGED TABLE realtime.presence_nodes (
  node text COLLATE "C" PRIMARY KEY,
  -- Every time here is the database's: the clocks of nodes differ.
  dies_at timestamp with time zone NOT NULL
) WITH (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 200
);
--> statement-breakpoint
-- Takes the channel's lock and answers where it stands. A channel that is new here begins.
CREATE FUNCTION realtime.presence_lock(of_channel text, OUT epoch text, OUT version bigint, OUT members integer)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  LOOP
    SELECT c.epoch, c.version, c.members INTO epoch, version, members
    FROM realtime.presence_channels c WHERE c.channel = of_channel FOR UPDATE;
    EXIT WHEN FOUND;
    -- One that was forgotten while this waited for it begins again.
    INSERT INTO realtime.presence_channels AS c (channel, epoch, version, empty_since)
    VALUES (of_channel, left(replace(gen_random_uuid()::text, '-', ''), 10), 0, clock_timestamp())
    ON CONFLICT DO NOTHING;
  END LOOP;
END
$$;
--> statement-breakpoint
-- Counts what changed in a channel whose lock is held, and notifies the nodes: the channel, its epoch, and a line for each
-- change. A notification carries less than 8,000 bytes, so a longer text goes in parts, which nodes join.
CREATE FUNCTION realtime.presence_tell(
  of_channel text, of_epoch text, new_version bigint, new_members integer, told text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  part_length CONSTANT integer := 1900;
  id CONSTANT text := 'presence.' || replace(gen_random_uuid()::text, '-', '');
  message CONSTANT text := '!' || of_channel || E'\n' || of_epoch || E'\n' || array_to_string(told, E'\n');
  parts CONSTANT integer := ceil(length(message)::numeric / part_length);
  topic text;
BEGIN
  UPDATE realtime.presence_channels c
  SET version = new_version, members = new_members,
    empty_since = CASE WHEN new_members = 0 THEN clock_timestamp() END
  WHERE c.channel = of_channel;
  SELECT l.topic || '_nodes' INTO topic FROM realtime.log l;
  FOR part IN 0..parts - 1 LOOP
    PERFORM pg_notify(topic, concat_ws(' ', id, part, parts, substr(message, part * part_length + 1, part_length)));
  END LOOP;
END
$$;
--> statement-breakpoint
-- Removes a member from a channel whose lock is held, and answers what is told of it: kind, connection, the one that
-- left or `-`, the member, and by how many the members became more. Null when it is no member.
CREATE FUNCTION realtime.presence_remove(of_channel text, of_connection text, of_node text) RETURNS text[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  removed record;
  other record;
BEGIN
  DELETE FROM realtime.presence_members m
  WHERE m.channel = of_channel AND m.connection = of_connection AND (of_node IS NULL OR m.node = of_node)
  RETURNING m."user", m.member INTO removed;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  SELECT m.connection, m.member INTO other
  FROM realtime.presence_members m
  WHERE m.channel = of_channel AND m."user" = removed."user" ORDER BY m.place LIMIT 1;
  IF FOUND THEN
    RETURN ARRAY['update', other.connection, of_connection, other.member, '-1'];
  END IF;
  RETURN ARRAY['leave', of_connection, '-', removed.member, '-1'];
END
$$;
--> statement-breakpoint
-- As above, for a connection that enters, or is a member and has other data. Empty where nothing changed, null where the
-- channel has no room.
CREATE FUNCTION realtime.presence_enter(
  of_node text, of_channel text, of_connection text, of_user text, user_name text, data text, has_room boolean
) RETURNS text[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  start CONSTANT text := '{"user":' || user_name || ',"connection":"' || of_connection || '","data":' || data || ',"since":';
  known record;
  place record;
  whole text;
  came_at bigint;
  is_first boolean;
BEGIN
  SELECT m.node, m.parts, m.since, m.member INTO known
  FROM realtime.presence_members m WHERE m.channel = of_channel AND m.connection = of_connection;
  IF FOUND THEN
    whole := start || known.since || '}';
    IF known.member <> whole OR known.node <> of_node OR known.parts THEN
      UPDATE realtime.presence_members m SET node = of_node, parts = false, member = whole
      WHERE m.channel = of_channel AND m.connection = of_connection;
    END IF;
    RETURN CASE WHEN known.member = whole THEN '{}' ELSE ARRAY['update', of_connection, '-', whole, '0'] END;
  END IF;

  -- Null for a connection without a user, which equals nothing.
  SELECT m.connection, m.since INTO place
  FROM realtime.presence_members m
  WHERE m.channel = of_channel AND m."user" = of_user AND m.parts ORDER BY m.place LIMIT 1;
  IF NOT FOUND AND NOT has_room THEN
    RETURN NULL;
  END IF;
  is_first := NOT EXISTS (SELECT FROM realtime.presence_members m WHERE m.channel = of_channel AND m."user" = of_user);
  came_at := coalesce(place.since, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
  whole := start || came_at || '}';
  IF place.connection IS NOT NULL THEN
    DELETE FROM realtime.presence_members m WHERE m.channel = of_channel AND m.connection = place.connection;
  END IF;
  INSERT INTO realtime.presence_members (channel, connection, node, "user", since, member)
  VALUES (of_channel, of_connection, of_node, of_user, came_at, whole);
  RETURN ARRAY[
    CASE WHEN is_first THEN 'join' ELSE 'update' END, of_connection, coalesce(place.connection, '-'), whole,
    CASE WHEN place.connection IS NULL THEN '1' ELSE '0' END
  ];
END
$$;
--> statement-breakpoint
-- Applies what a node wants of its connections: array of {kind, channel, connection, user, name (the user in JSON), data,
-- most}. Answers a row for each, in their order: where its channel stands after all of them, the line that was told or
-- null, and whether the channel had no room.
CREATE FUNCTION realtime.presence_apply(of_node text, changes jsonb)
RETURNS TABLE (epoch text, version bigint, told text, is_full boolean)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  its_channel text;
  stands record;
  wish record;
  telling text[];
  lines text[];
  line text;
  answers jsonb := '{}';
BEGIN
  -- In one order everywhere, so that two that change the same channels do not wait for each other for ever.
  FOR its_channel IN
    SELECT DISTINCT w.channel COLLATE "C" FROM jsonb_to_recordset(changes) AS w (channel text) ORDER BY 1
  LOOP
    stands := realtime.presence_lock(its_channel);
    lines := '{}';
    FOR wish IN
      SELECT w.* FROM ROWS FROM (jsonb_to_recordset(changes) AS (
        kind text, channel text, connection text, "user" text, name text, data text, most integer
      )) WITH ORDINALITY AS w (kind, channel, connection, "user", name, data, most, place)
      WHERE w.channel = its_channel ORDER BY w.place
    LOOP
      IF wish.kind = 'enter' THEN
        telling := realtime.presence_enter(
          of_node, its_channel, wish.connection, wish."user", wish.name, wish.data,
          wish.most = 0 OR stands.members < wish.most
        );
      ELSIF wish.kind = 'leave' THEN
        telling := coalesce(realtime.presence_remove(its_channel, wish.connection, NULL), '{}');
      ELSE
        UPDATE realtime.presence_members m SET parts = true
        WHERE m.channel = its_channel AND m.connection = wish.connection;
        telling := '{}';
      END IF;
      line := NULL;
      IF telling <> '{}' THEN
        stands.version := stands.version + 1;
        stands.members := stands.members + telling[5]::integer;
        line := concat_ws(' ', telling[1], stands.version, telling[2], telling[3], telling[4]);
        lines := lines || line;
      END IF;
      answers := answers || jsonb_build_object(wish.place, jsonb_build_object('told', line, 'full', telling IS NULL));
    END LOOP;
    IF lines <> '{}' THEN
      PERFORM realtime.presence_tell(its_channel, stands.epoch, stands.version, stands.members, lines);
    END IF;
  END LOOP;
  RETURN QUERY
  SELECT c.epoch, c.version, answers -> w.place::text ->> 'told', (answers -> w.place::text ->> 'full')::boolean
  FROM ROWS FROM (jsonb_to_recordset(changes) AS (channel text)) WITH ORDINALITY AS w (channel, place)
  JOIN realtime.presence_channels c ON c.channel = w.channel
  ORDER BY w.place;
END
$$;
--> statement-breakpoint
-- Removes up to so many members of a dead node, and answers what was told of each. `is_done` is true in every row, or in
-- one row without a channel, when nothing is left of the node, which is then forgotten.
CREATE FUNCTION realtime.presence_bury(of_node text, most integer)
RETURNS TABLE (is_done boolean, channel text, told text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  theirs record;
  its_connection text;
  stands record;
  telling text[];
  lines text[];
  all_told jsonb := '[]';
BEGIN
  FOR theirs IN
    SELECT m.channel, array_agg(m.connection) AS connections
    FROM (
      SELECT x.channel, x.connection FROM realtime.presence_members x
      WHERE x.node = of_node ORDER BY x.channel LIMIT most
    ) m
    GROUP BY 1 ORDER BY 1
  LOOP
    stands := realtime.presence_lock(theirs.channel);
    lines := '{}';
    FOREACH its_connection IN ARRAY theirs.connections LOOP
      telling := realtime.presence_remove(theirs.channel, its_connection, of_node);
      IF telling IS NOT NULL THEN
        stands.version := stands.version + 1;
        stands.members := stands.members + telling[5]::integer;
        lines := lines || concat_ws(' ', telling[1], stands.version, telling[2], telling[3], telling[4]);
      END IF;
    END LOOP;
    IF lines <> '{}' THEN
      PERFORM realtime.presence_tell(theirs.channel, stands.epoch, stands.version, stands.members, lines);
      all_told := all_told || (
        SELECT jsonb_agg(jsonb_build_object('channel', theirs.channel, 'told', l.line)) FROM unnest(lines) AS l (line)
      );
    END IF;
  END LOOP;
  is_done := NOT EXISTS (SELECT FROM realtime.presence_members m WHERE m.node = of_node);
  IF is_done THEN
    DELETE FROM realtime.presence_nodes n WHERE n.node = of_node;
  END IF;
  RETURN QUERY
  SELECT is_done, t.channel, t.told
  FROM (SELECT 1) AS one LEFT JOIN jsonb_to_recordset(all_told) AS t (channel text, told text) ON true;
END
$$;
--> statement-breakpoint
-- A node's sign of life. Channels that have been empty for a minute are forgotten along with it, a few at a time.
CREATE FUNCTION realtime.presence_live(
  of_node text, milliseconds integer, OUT is_known boolean, OUT dead text[], OUT next_death_ms double precision
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  ends CONSTANT timestamp with time zone := clock_timestamp() + milliseconds * interval '1 millisecond';
BEGIN
  UPDATE realtime.presence_nodes n SET dies_at = ends WHERE n.node = of_node;
  is_known := FOUND;
  IF NOT is_known THEN
    INSERT INTO realtime.presence_nodes (node, dies_at) VALUES (of_node, ends) ON CONFLICT DO NOTHING;
  END IF;
  dead := ARRAY(
    SELECT n.node FROM realtime.presence_nodes n
    WHERE n.dies_at <= clock_timestamp() AND n.node <> of_node ORDER BY n.dies_at LIMIT 10
  );
  SELECT extract(epoch FROM min(n.dies_at) - clock_timestamp()) * 1000 INTO next_death_ms
  FROM realtime.presence_nodes n WHERE n.dies_at > clock_timestamp() AND n.node <> of_node;
  DELETE FROM realtime.presence_channels c WHERE c.channel = ANY (ARRAY(
    SELECT e.channel FROM realtime.presence_channels e
    WHERE e.empty_since < clock_timestamp() - interval '1 minute' LIMIT 200 FOR UPDATE SKIP LOCKED
  ));
END
$$;
