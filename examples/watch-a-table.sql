-- A table of your own, watched: what each statement publishes is told beside it.
-- Run it with the psql line that start-up prints:   psql '<url>' -f examples/watch-a-table.sql
-- and look on in another shell:                     curl -N 'localhost:3000/realtime/events?channels=orders,customer:7,customer:8'

CREATE TABLE IF NOT EXISTS orders (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  customer_id bigint NOT NULL,
  status text NOT NULL DEFAULT 'new',
  internal_note text
);

-- Each change goes to `orders` and to the channel of its customer; internal_note never leaves the database.
SELECT realtime.watch(
  'orders',
  channels => ARRAY['orders', 'customer:{customer_id}'],
  columns => ARRAY['id', 'customer_id', 'status']
);

-- INSERT in orders and in customer:7.
INSERT INTO orders (customer_id, internal_note) VALUES (7, 'calls every day');

-- UPDATE in orders and in customer:7; `old` holds the key and what was changed.
UPDATE orders SET status = 'paid' WHERE id = (SELECT max(id) FROM orders);

-- UPDATE in orders, DELETE in customer:7, INSERT in customer:8, the latter two with "moved": true.
UPDATE orders SET customer_id = 8 WHERE id = (SELECT max(id) FROM orders);

-- Nothing: it was rolled back.
BEGIN;
INSERT INTO orders (customer_id) VALUES (7);
SELECT realtime.send('orders', '{"never": "seen"}');
ROLLBACK;

-- Any message, to any channel, if and only if its transaction commits.
SELECT realtime.send('customer:8', '{"text": "Your parcel is on its way"}');

-- DELETE in orders and in customer:8.
DELETE FROM orders WHERE id = (SELECT max(id) FROM orders);
