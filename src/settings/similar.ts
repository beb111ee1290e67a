// Finds environment variables that are probably a mistyped setting: a setting that is silently not applied (a token
// key, a limit) does more harm than a start that is refused with a hint.

/** Names that other programs use and that stand close to ours, and families that are never ours. */
const foreignNames = new Set([
  'HOME',
  'HOSTNAME',
  'HOSTTYPE',
  'HOSTS',
  'GHOST',
  'PATH',
  'PWD',
  'APP_KEY',
  'API_PEM',
  'NODE_IP',
  'NODE_OPTIONS',
  'NODE_PATH',
  'NODE_NAME',
  'NODE_PORT',
  'NODE_HOST',
  'NODE_DEBUG',
  'NODE_EXTRA_CA_CERTS',
  'NODE_NO_WARNINGS',
  'NODE_TLS_REJECT_UNAUTHORIZED',
]);
const foreignPrefixes = ['npm_', 'PG', 'BUN_', 'KUBERNETES_', 'XDG_', 'LC_', 'SSH_', 'GIT_'];

/** Names from 4 letters on may differ by one slip, from 8 letters on by two; in shorter ones a slip makes another word. */
function slipsAllowed(name: string): number {
  if (name.length >= 8) return 2;
  return name.length >= 4 ? 1 : 0;
}

/** The known name that `name` was probably meant to be, if any. Letter case counts as no slip. */
export function similarName(name: string, known: readonly string[]): string | undefined {
  if (foreignNames.has(name) || foreignPrefixes.some((prefix) => name.startsWith(prefix))) return undefined;
  const upper = name.toUpperCase();
  let best: { readonly name: string; readonly slips: number } | undefined;
  for (const candidate of known) {
    const allowed = slipsAllowed(candidate);
    if (Math.abs(candidate.length - upper.length) > allowed) continue;
    const slips = slipsBetween(upper, candidate);
    if (slips <= allowed && (best === undefined || slips < best.slips)) best = { name: candidate, slips };
  }
  return best?.name;
}

/**
 * Damerau-Levenshtein distance in its optimal string alignment form: letters left out, added, changed, and neighbours
 * swapped, each counted once.
 */
export function slipsBetween(left: string, right: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: right.length + 1 }, (_, column) => column);
  for (let row = 1; row <= left.length; row++) {
    const current = [row];
    for (let column = 1; column <= right.length; column++) {
      const same = left[row - 1] === right[column - 1];
      let cost = Math.min(
        cell(last, column) + 1,
        cell(current, column - 1) + 1,
        cell(last, column - 1) + (same ? 0 : 1),
      );
      const swapped =
        row > 1 && column > 1 && left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1];
      if (swapped) cost = Math.min(cost, cell(beforeLast, column - 2) + 1);
      current.push(cost);
    }
    beforeLast = last;
    last = current;
  }
  return cell(last, right.length);
}

function cell(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
