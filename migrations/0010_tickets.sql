-- Tickets: each opens one connection on any node, within seconds. Unlogged: a crash, or a failover, forgets tickets that
-- would have ended in a moment, and their holders ask for others.
CREATE UNLOGGED TABLE realtime.tickets (
  -- SHA-256 of the ticket, in base64url: who may read this table cannot connect with what it holds.
  digest text PRIMARY KEY,
  -- Whom it speaks of, as a token's claims would, in JSON.
  claims text NOT NULL,
  -- Every time here is the database's: the clocks of nodes differ.
  ends_at timestamp with time zone NOT NULL
) WITH (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000
);
