// Ends a start under a Bun that is too old before anything of it fails in ways that nobody could read. Imported for its
// effect, before all other modules.

export const oldestBun = '1.4.0';

/** Undefined when this version will do. */
export function bunFault(version: string): string | undefined {
  if (Bun.semver.order(version, oldestBun) >= 0) return undefined;
  return `This server needs Bun ${oldestBun} or newer, and this is Bun ${version}. Upgrade it: bun upgrade`;
}

const fault = bunFault(Bun.version);
if (fault !== undefined) {
  console.error(fault);
  process.exit(1);
}
