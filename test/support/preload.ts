// Loaded before every test file: has the tests wait for their own cleaning, so that nothing of them is left when the
// command returns. Without it the cleaning is done a moment later.

import { afterAll, setDefaultTimeout } from 'bun:test';
import { cleanUp } from './janitor.ts';

// A slow machine is no failure; a test that hangs is found all the same.
setDefaultTimeout(process.env['LONG'] === '1' ? 600_000 : 60_000);

afterAll(cleanUp, 60_000);
