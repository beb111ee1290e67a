// Loaded before every test file: has the tests wait for their own cleaning, so that nothing of them is left when the
// command returns. Without it the cleaning is done a moment later.

import { afterAll } from 'bun:test';
import { cleanUp } from './janitor.ts';

afterAll(cleanUp, 60_000);
