-- What is read from other services' brokers: up to where, and how its messages reach the outbox.

-- How far each partition of a source was taken. Its row is locked while messages are taken, so that two nodes that both
-- believe to read a partition take one after the other.
CREATE TABLE realtime.sources (
  source text NOT NULL,
  partition text NOT NULL,
  -- The place after the last message that was taken, in the words of the source's reader; NULL: nothing was yet.
  mark text,
  -- Messages that were taken, parked ones too.
  messages bigint DEFAULT 0 NOT NULL,
  taken_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT sources_pk PRIMARY KEY (source, partition)
);
--> statement-breakpoint
-- The mark is written with each batch: half of each page stays free for the row's next version.
ALTER TABLE realtime.sources SET (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 500,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint
-- Takes messages of a partition, as one transaction: the mark moves on, what is to be published stands in the outbox, and
-- what cannot be is parked. So a crash at any moment leaves all of it done, or nothing.
--
-- Answers false, and does nothing, when the mark is not the `expected` one: somebody else took these messages.
-- `parked` is an array of {channel, data, bytes, error}; data is base64.
CREATE FUNCTION realtime.take_messages(
  source text, partition text, expected text, mark text, messages bigint, channels text[], data text[], parked jsonb
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
  UPDATE realtime.sources s
  SET mark = take_messages.mark, messages = s.messages + take_messages.messages, taken_at = clock_timestamp()
  WHERE s.source = take_messages.source AND s.partition = take_messages.partition
    AND s.mark IS NOT DISTINCT FROM take_messages.expected;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF cardinality(channels) > 0 THEN
    INSERT INTO realtime.outbox (xid, lsn, channel, data)
    SELECT pg_current_xact_id(), pg_current_wal_insert_lsn(), u.channel, u.data
    FROM unnest(channels, take_messages.data) u (channel, data);
    PERFORM realtime.ring();
  END IF;
  INSERT INTO realtime.parked (channel, data, bytes, error, written_at)
  SELECT p.value ->> 'channel', decode(p.value ->> 'data', 'base64'), (p.value ->> 'bytes')::bigint,
    left(p.value ->> 'error', 2000), clock_timestamp()
  FROM jsonb_array_elements(parked) p;
  RETURN true;
END;
$$;
