-- A table of your own, watched: what each statement publishes stands beside it. All of it happens in a schema of its own, which
-- is dropped at the end; nothing that was there before is touched.
-- Run it with the psql line that start-up prints:   psql '<url>' -f examples/watch-a-table.sql
-- and look on in another shell:                     curl -N 'localhost:3000/realtime/events?channels=orders,customer:7,customer:8'

CREATE SCHEMA sobranie_example;

CREATE TABLE sobranie_example.orders (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  customer_id bigint NOT NULL,
  status text NOT NULL DEFAULT 'new',
  internal_note text
);

-- Each change goes to `orders` and to the channel of its customer; internal_note never leaves the database.
SELECT realtime.watch(
  'sobranie_example.orders',
  channels => ARRAY['orders', 'customer:{customer_id}'],
  columns => ARRAY['id', 'customer_id', 'status']
);

-- INSERT in orders and in customer:7.
INSERT INTO sobranie_example.orders (customer_id, internal_note) VALUES (7, 'calls every day');

-- UPDATE in orders and in customer:7; `old` holds the key and what was changed.
UPDATE sobranie_example.orders SET status = 'paid' WHERE customer_id = 7;

-- UPDATE in orders, DELETE in customer:7, INSERT in customer:8, the latter two with "moved": true.
UPDATE sobranie_example.orders SET customer_id = 8 WHERE customer_id = 7;

-- Nothing: it was rolled back.
BEGIN;
INSERT INTO sobranie_example.orders (customer_id) VALUES (7);
SELECT realtime.send('orders', '{"never": "seen"}');
ROLLBACK;

-- Any message, to any channel, if and only if its transaction commits.
SELECT realtime.send('customer:8', '{"text": "Your parcel is on its way"}');

-- DELETE in orders and in customer:8.
DELETE FROM sobranie_example.orders WHERE customer_id = 8;

DROP SCHEMA sobranie_example CASCADE;
