// The proof on the page: both connections are closed for five seconds while rows keep being written, then each must
// hand over every missed row exactly once. Judged by the feeds' own counts of arrivals, not by the list on screen,
// which a reload could have filled.

const cutMs = 5_000;
const writes = 10;
const recoveryDeadlineMs = 15_000;
const pollMs = 50;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Runs one cut over `sides` ([{connection, feed, column}]). `say` is told how it goes. The rows written are those that
 * the server acknowledged: a refused write is not a missed message.
 */
export async function runCut({ sides, store, say }) {
  const gapsBefore = sides.map(({ feed }) => feed.gaps);
  for (const { connection, column } of sides) {
    connection.cut();
    column.showRecovery('', 'none');
  }
  const { keys, failure } = await writeMeanwhile(store, say);
  for (const { connection } of sides) connection.resume();
  say(
    failure === null
      ? `Reconnected; ${keys.length} rows were written meanwhile.`
      : `Writing failed: ${failure.message}`,
  );

  await Promise.all(sides.map((side, index) => judge(side, keys, gapsBefore[index])));
}

async function writeMeanwhile(store, say) {
  const start = Date.now();
  const keys = [];
  let failure = null;
  for (let number = 1; number <= writes; number += 1) {
    await sleep(start + ((number - 0.5) * cutMs) / writes - Date.now());
    const secondsLeft = Math.ceil((start + cutMs - Date.now()) / 1_000);
    say(`Cut for ${secondsLeft} s more; ${keys.length} rows written meanwhile.`);
    try {
      keys.push(
        await store.insert({
          title: `Missed message ${number} of ${writes}`,
          body: 'Written during the cut.',
        }),
      );
    } catch (error) {
      failure = error;
    }
  }
  await sleep(start + cutMs - Date.now());
  return { keys, failure };
}

async function judge({ feed, column }, keys, gapsBefore) {
  const deadline = Date.now() + recoveryDeadlineMs;
  const count = () => keys.map((key) => feed.arrivalsOf(key));
  while (count().some((times) => times === 0) && Date.now() < deadline) {
    const arrived = count().filter((times) => times > 0).length;
    column.showRecovery(`recovering ${arrived} of ${keys.length}…`, 'running');
    await sleep(pollMs);
  }
  const arrived = count().filter((times) => times > 0).length;
  const doubled = count().filter((times) => times > 1).length;
  const whole = arrived === keys.length && doubled === 0 && feed.gaps === gapsBefore;
  const remark = doubled > 0 ? `, ${doubled} more than once` : whole ? ', each exactly once' : '';
  column.showRecovery(`recovered ${arrived} of ${keys.length}${remark}`, whole ? 'whole' : 'broken');
}
