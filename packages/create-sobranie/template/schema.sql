-- Run at each start, so every statement can be run again.

CREATE TABLE IF NOT EXISTS tasks (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  title text NOT NULL,
  done boolean NOT NULL DEFAULT false,
  author text NOT NULL
);

-- From here on every insert, update and delete goes to the channel `tasks`, whoever writes it.
SELECT realtime.watch('tasks');
