// Finds environment variables that are probably a mistyped setting. A setting that is silently not applied, be it a
// token key or a limit, does more harm than a start that stops with a hint.

import leven from 'leven';

/** Names of other programs that look like ours. */
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

const slipsMax = 3;

/** In a name of less than 4 letters a slip makes another word; one from 8 letters on may hold two, a long one three. */
function slipsAllowed(name: string): number {
  if (name.length >= 16) return slipsMax;
  if (name.length >= 8) return 2;
  return name.length >= 4 ? 1 : 0;
}

/** No setting has the unit of its value behind its whole name. A short name with one may be another program's. */
const unitBehind = /^(.{8,})_(?:MS|MILLIS|MILLISECONDS|SECS?|SECONDS|MINS?|MINUTES|BYTES|KB|MB)$/;

/** The known name that `name` was probably meant to be, if any. Letter case counts as no slip. */
export function similarName(name: string, known: readonly string[]): string | undefined {
  if (foreignNames.has(name)) return undefined;
  const upper = name.toUpperCase();
  const withoutUnit = unitBehind.exec(upper)?.[1];
  if (withoutUnit !== undefined && known.includes(withoutUnit)) return withoutUnit;
  let best: { readonly name: string; readonly slips: number } | undefined;
  for (const candidate of known) {
    const allowed = slipsAllowed(candidate);
    if (Math.abs(candidate.length - upper.length) > allowed) continue;
    const slips = slipsBetween(upper, candidate);
    if (slips <= allowed && (best === undefined || slips < best.slips)) best = { name: candidate, slips };
  }
  return best?.name;
}

/** Letters left out, added or changed, and neighbours swapped, each counted once. */
export function slipsBetween(left: string, right: string): number {
  const slips = leven(left, right);
  if (slips < 2 || slips > slipsMax + 1) return slips;
  // The library counts a swap as two changes: so one is undone before it counts, at every place in turn.
  const unswapped = Array.from({ length: Math.max(0, left.length - 1) }, (_, at) => {
    return left.slice(0, at) + left.charAt(at + 1) + left.charAt(at) + left.slice(at + 2);
  });
  return Math.min(slips, ...unswapped.map((text) => leven(text, right) + 1));
}
