// The debug log: every frame and every change of state, for whoever looks for a fault in a page that runs.

import { page, quietly } from './platform.ts';

/** Writes to the console if `localStorage.sobranie` is set, and does nothing otherwise. */
export function debugLog(): (line: string) => void {
  const isOn = quietly(() => page.localStorage?.getItem('sobranie'));
  return (line) => isOn && console.debug(`sobranie ${line}`);
}
