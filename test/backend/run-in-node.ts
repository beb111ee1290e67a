// The suite in Node: a line of JSON for each case that has ended.

import { perform } from './cases.ts';

const [url = '', apiKey = '', secret = ''] = process.argv.slice(2);
await perform({ url, apiKey, secret, run: 'node' }, (outcome) => console.log(JSON.stringify(outcome)));
process.exit(0);
