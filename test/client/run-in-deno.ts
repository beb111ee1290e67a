// The suite in Deno, which has a WebSocket of its own: a line of JSON for each case that has ended.

import { cases } from './cases.ts';
import { perform } from './stage.ts';

declare const Deno: { readonly args: readonly string[]; exit(code: number): never };

const [director = ''] = Deno.args;
await perform(cases, director, 'deno', {}, (outcome) => console.log(JSON.stringify(outcome)));
Deno.exit(0);
