-- The plain way: every row is notified by itself, as JSON, when its transaction commits.
create function plain.notify_realtime_event() returns trigger language plpgsql as $$
begin
  perform pg_notify('realtime_events',
    json_build_object('action', tg_op, 'table', tg_table_name, 'data', row_to_json(new))::text);
  return new;
end;
$$;

create trigger bench_rows_realtime after insert or update on plain.bench_rows
  for each row execute function plain.notify_realtime_event();
