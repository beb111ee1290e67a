-- Who may call what. Nobody but the owner, whatever the default privileges gave away when the objects were made; then what
-- anybody may have, who is let into the schema by GRANT USAGE: functions that only look at the catalog or change a text.
DO $$
DECLARE
  item record;
BEGIN
  FOR item IN
    SELECT p.oid::regprocedure AS function FROM pg_proc p
    WHERE p.pronamespace = 'realtime'::regnamespace OR p.oid = to_regprocedure('public.notify_realtime_event()')
  LOOP
    PERFORM realtime.close_function(item.function);
  END LOOP;
  FOR item IN
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass AS relation,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
    FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
    WHERE c.relnamespace = 'realtime'::regnamespace AND c.relkind IN ('r', 'v', 'S') AND a.grantee <> c.relowner
    GROUP BY 1, 2, 3
  LOOP
    EXECUTE format('REVOKE ALL ON %s %s FROM %s CASCADE', item.kind, item.relation, item.grantee);
  END LOOP;
  FOR item IN
    SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
    FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
    WHERE n.nspname = 'realtime' AND a.grantee <> n.nspowner GROUP BY 1
  LOOP
    EXECUTE format('REVOKE ALL ON SCHEMA realtime FROM %s CASCADE', item.grantee);
  END LOOP;
END;
$$;
--> statement-breakpoint
GRANT EXECUTE ON FUNCTION
  realtime.is_owner(regclass), realtime.is_channel(text), realtime.part(text), realtime.base_type(oid),
  realtime.element_type(oid), realtime.composite_relation(oid), realtime.types_within(oid), realtime.key_columns(oid),
  realtime.relations_within(regclass), realtime.foreign_partitions(oid), realtime.shape(regclass),
  realtime.watch_triggers(integer, regclass), realtime.present_triggers(regclass, integer),
  realtime.lock_briefly(regclass, text), realtime.lock_watches(), realtime.mark()
TO PUBLIC;
--> statement-breakpoint
-- The policy decides which of them, and for whom: owners of tables that may call realtime.watch.
GRANT SELECT, INSERT, UPDATE, DELETE ON realtime.watched TO PUBLIC;
