// Run by `bun run test`: makes, in the folder that it is given, the cluster of which the tests' clusters are copies.

import { cleanUp } from './janitor.ts';
import { makeImage } from './postgres.ts';

const path = process.argv[2];
if (path === undefined) throw new Error('the folder to make is missing');
await makeImage(path);
await cleanUp();
