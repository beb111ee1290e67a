// How long a test may take. The runner forgets what was set before all files, so files with long tests set it again.

import { setDefaultTimeout } from 'bun:test';

/** A slow machine is no failure; a test that hangs is found all the same. */
export function patient(): void {
  setDefaultTimeout(process.env['LONG'] === '1' ? 600_000 : 60_000);
}

/** Of what a node answers within a second, with room for a machine that others use as well. */
export const answerMsMax = 8_000;
