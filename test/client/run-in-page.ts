// The suite in a page: the test process gives it two functions to call.

import { cases } from './cases.ts';
import { perform, type Outcome } from './stage.ts';

declare const told: (outcome: Outcome) => void;
declare const ended: () => void;

const { href } = (globalThis as unknown as { location: { href: string } }).location;
await perform(cases, new URL(href).searchParams.get('director') ?? '', 'page', {}, told);
ended();
