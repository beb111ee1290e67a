-- Hooks: what the nodes tell an application's own endpoint. A node keeps here what it has of channels with subscribers,
-- members and users; the first row of a subject, and the end of its last one, make an event. Events wait here until the
-- receiver has taken them. Only the owner of this schema calls these functions.

CREATE TABLE realtime.hook_nodes (
  node text COLLATE "C" PRIMARY KEY,
  seen_at timestamp with time zone NOT NULL
);
--> statement-breakpoint
-- `channel`, `member` or `user`. A user has no channel, and a channel nobody. Who has no user is a connection: `c:<id>`;
-- a user is `u:<id>`.
CREATE TABLE realtime.hook_states (
  kind text COLLATE "C" NOT NULL,
  channel text COLLATE "C" NOT NULL,
  who text COLLATE "C" NOT NULL,
  node text COLLATE "C" NOT NULL,
  CONSTRAINT hook_states_pkey PRIMARY KEY (kind, channel, who, node)
);
--> statement-breakpoint
CREATE INDEX hook_states_node ON realtime.hook_states USING btree (node);
--> statement-breakpoint
CREATE TABLE realtime.hook_events (
  -- Taken under the lock alone, so the order of the events is that of the changes.
  seq bigserial PRIMARY KEY,
  id uuid DEFAULT gen_random_uuid() NOT NULL,
  event text NOT NULL,
  channel text NOT NULL,
  who text NOT NULL,
  at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
--> statement-breakpoint
-- Adds events, and drops the oldest ones past `events_max`. Answers how many those were.
CREATE FUNCTION realtime.hook_tell(
  kinds text[], channels text[], whos text[], beginnings boolean[], events_max integer
) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  last bigint;
  dropped bigint := 0;
BEGIN
  INSERT INTO realtime.hook_events (event, channel, who)
  SELECT CASE u.kind
      WHEN 'channel' THEN CASE WHEN u.begins THEN 'channel.occupied' ELSE 'channel.vacated' END
      WHEN 'member' THEN CASE WHEN u.begins THEN 'member.joined' ELSE 'member.left' END
      ELSE CASE WHEN u.begins THEN 'user.online' ELSE 'user.offline' END
    END, u.channel, u.who
  FROM unnest(kinds, channels, whos, beginnings) WITH ORDINALITY u (kind, channel, who, begins, place) ORDER BY u.place;
  SELECT max(e.seq) INTO last FROM realtime.hook_events e;
  IF last - (SELECT min(e.seq) FROM realtime.hook_events e) >= events_max THEN
    DELETE FROM realtime.hook_events e WHERE e.seq <= last - events_max;
    GET DIAGNOSTICS dropped = ROW_COUNT;
  END IF;
  RETURN dropped;
END;
$$;
--> statement-breakpoint
-- The sign of life of a node, with what has changed on it: each subject once, and whether the node has it now. `known`:
-- the node was not new, and was not taken for dead since its last sign.
CREATE FUNCTION realtime.hook_change(
  node text, kinds text[], channels text[], whos text[], here boolean[], events_max integer,
  OUT known boolean, OUT lost bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  before boolean[];
  changed record;
BEGIN
  -- Two nodes that lose the last of a subject at once would otherwise each see the other's.
  PERFORM pg_advisory_xact_lock(1937006946, 5);
  known := EXISTS (SELECT FROM realtime.hook_nodes n WHERE n.node = hook_change.node);
  INSERT INTO realtime.hook_nodes AS n (node, seen_at) VALUES (hook_change.node, clock_timestamp())
  ON CONFLICT ON CONSTRAINT hook_nodes_pkey DO UPDATE SET seen_at = excluded.seen_at;
  lost := 0;
  IF cardinality(kinds) = 0 THEN
    RETURN;
  END IF;
  before := ARRAY(
    SELECT EXISTS (
      SELECT FROM realtime.hook_states s WHERE s.kind = u.kind AND s.channel = u.channel AND s.who = u.who
    )
    FROM unnest(kinds, channels, whos) WITH ORDINALITY u (kind, channel, who, place) ORDER BY u.place
  );
  INSERT INTO realtime.hook_states (kind, channel, who, node)
  SELECT u.kind, u.channel, u.who, hook_change.node
  FROM unnest(kinds, channels, whos, here) u (kind, channel, who, is_here) WHERE u.is_here
  ON CONFLICT ON CONSTRAINT hook_states_pkey DO NOTHING;
  DELETE FROM realtime.hook_states s
  USING unnest(kinds, channels, whos, here) u (kind, channel, who, is_here)
  WHERE NOT u.is_here AND s.kind = u.kind AND s.channel = u.channel AND s.who = u.who AND s.node = hook_change.node;
  SELECT array_agg(c.kind ORDER BY c.place) AS kinds, array_agg(c.channel ORDER BY c.place) AS channels,
    array_agg(c.who ORDER BY c.place) AS whos, array_agg(c.now ORDER BY c.place) AS now
  INTO changed
  FROM (
    SELECT u.*, EXISTS (
      SELECT FROM realtime.hook_states s WHERE s.kind = u.kind AND s.channel = u.channel AND s.who = u.who
    ) AS now
    FROM unnest(kinds, channels, whos, before) WITH ORDINALITY u (kind, channel, who, was, place)
  ) c
  WHERE c.was <> c.now;
  IF changed.kinds IS NOT NULL THEN
    lost := realtime.hook_tell(changed.kinds, changed.channels, changed.whos, changed.now, events_max);
  END IF;
END;
$$;
--> statement-breakpoint
-- Takes from dead nodes what they had: those that gave no sign for so many seconds. Answers how many events were dropped.
CREATE FUNCTION realtime.hook_sweep(seconds double precision, events_max integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  dead text[];
  gone record;
BEGIN
  PERFORM pg_advisory_xact_lock(1937006946, 5);
  dead := ARRAY(
    SELECT n.node FROM realtime.hook_nodes n WHERE n.seen_at < clock_timestamp() - make_interval(secs => seconds)
  );
  IF cardinality(dead) = 0 THEN
    RETURN 0;
  END IF;
  DELETE FROM realtime.hook_nodes n WHERE n.node = ANY (dead);
  WITH left_behind AS (
    DELETE FROM realtime.hook_states s WHERE s.node = ANY (dead) RETURNING s.kind, s.channel, s.who
  ), last AS (
    -- What was deleted is still seen here, and is no node that lives.
    SELECT DISTINCT l.kind, l.channel, l.who FROM left_behind l
    WHERE NOT EXISTS (
      SELECT FROM realtime.hook_states s
      WHERE s.kind = l.kind AND s.channel = l.channel AND s.who = l.who AND s.node <> ALL (dead)
    )
  )
  SELECT array_agg(l.kind) AS kinds, array_agg(l.channel) AS channels, array_agg(l.who) AS whos,
    array_agg(false) AS now
  INTO gone FROM last l;
  IF gone.kinds IS NULL THEN
    RETURN 0;
  END IF;
  RETURN realtime.hook_tell(gone.kinds, gone.channels, gone.whos, gone.now, events_max);
END;
$$;
--> statement-breakpoint
-- The node ends: what it has is taken from it in so many seconds, unless another node has it by then.
CREATE FUNCTION realtime.hook_end(node text, seconds double precision, dead_seconds double precision) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
  UPDATE realtime.hook_nodes n
  SET seen_at = clock_timestamp() - make_interval(secs => dead_seconds) + make_interval(secs => seconds)
  WHERE n.node = hook_end.node
$$;
