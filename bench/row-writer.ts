// A process of its own that inserts rows at a steady rate and prints how many. Each connection numbers its rows and
// sends them in order without waiting for the one before, so that the rate holds whatever a commit takes.
// Arguments: url, table, run, rows per second, seconds, connections.
import postgres from 'postgres';
import { wallClockMs } from './wall-clock.ts';

const [url, table, ...numbers] = process.argv.slice(2);
const [run, rate, seconds, connections] = numbers.map(Number);
if (!url || !table || run === undefined || !rate || !seconds || !connections) {
  throw new Error('usage: row-writer.ts <url> <table> <run> <rows per second> <seconds> <connections>');
}

const body = 'x'.repeat(100);
const statement = `insert into ${table} (run, writer, number, sent_at, body) values ($1, $2, $3, $4, $5)`;
const writers = Array.from({ length: connections }, () => postgres(url, { max: 1 }));
await Promise.all(writers.map((sql) => sql`select 1`));

const rows = Math.round(rate * seconds);
const pending: Promise<unknown>[] = [];
const began = performance.now();
while (pending.length < rows) {
  const due = Math.min(rows, Math.ceil(((performance.now() - began) / 1000) * rate));
  while (pending.length < due) {
    const writer = pending.length % connections;
    const number = Math.floor(pending.length / connections) + 1;
    const values = [run, writer, number, wallClockMs(), body];
    pending.push(Promise.resolve(writers[writer]?.unsafe(statement, values, { prepare: true })));
  }
  await Bun.sleep(1);
}
await Promise.all(pending);
await Promise.all(writers.map((sql) => sql.end({ timeout: 2 })));
console.log(JSON.stringify({ rows }));
