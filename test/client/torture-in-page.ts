// Victims in a page: the test process gives it a function to call with its reports.

import { jumpClock, suffer } from './torture-client.ts';

declare const told: (reports: unknown) => void;

const { href } = (globalThis as unknown as { location: { href: string } }).location;
const query = new URL(href).searchParams;
const [tormentor, engine] = [query.get('tormentor') ?? '', query.get('engine') ?? ''];
jumpClock(Number(query.get('seed')));
told(await Promise.all([suffer(tormentor, engine, 'websocket'), suffer(tormentor, engine, 'sse')]));
