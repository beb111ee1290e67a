// The console: a page for the operator, and the calls behind it that no other page has: what this node knows of itself,
// a ticket to tail a channel with, and publishing. Each call needs the admin key; the page itself says nothing.

import { Elysia } from 'elysia';
import type { Cluster } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import { rateStepMs } from '../core/rates.ts';
import { isServerChannel } from '../protocol/channel.ts';
import { memberText, singleLine } from '../protocol/json-text.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isUser, userShape } from '../protocol/user.ts';
import { queryOf, readJsonBody, requireChannel, wholeNumberOf } from '../http/request.ts';
import { clientFile, pageFiles, pageHeaders } from './page-files.ts';

/** A line of the log, a warning or worse. */
export interface LoggedLine {
  /** Unix milliseconds. */
  readonly at: number;
  readonly level: string;
  readonly text: string;
}

export interface ConsoleOptions {
  readonly node: string;
  readonly version: string;
  readonly sync: string;
  readonly hub: Hub;
  readonly cluster: Cluster;
  /** Throws unless the request is the operator's. */
  readonly requireAdmin: (request: Request) => void;
  readonly health: () => Promise<unknown>;
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
  /** As `realtime.watches` has them; undefined without a database. */
  readonly watches: () => Promise<readonly object[]> | undefined;
  /** The newest last. */
  readonly errors: () => readonly LoggedLine[];
  readonly ticket: (channel: string) => Promise<{ readonly ticket: string }>;
}

const files = {
  '/console': 'console.html',
  '/console/theme.css': 'demo-theme.css',
  '/console/console.css': 'console.css',
  '/console/console.js': 'console.js',
  '/console/console-calls.js': 'console-calls.js',
  '/console/console-rates.js': 'console-rates.js',
  '/console/console-tail.js': 'console-tail.js',
  '/console/icon.svg': 'demo.svg',
};
/** Those of src/pages/ that the console is made of. */
export const consoleFiles: readonly string[] = Object.values(files);

const channelsMax = 500;
const privateHeaders = { ...pageHeaders, 'cache-control': 'no-store' };
const bodyBytesMax = 96 << 10;
const bodyLimit = { bytesMax: bodyBytesMax, tooLarge: `The body is larger than ${bodyBytesMax} bytes.` };

export function consolePages(options: ConsoleOptions): Elysia {
  const { hub, cluster, requireAdmin } = options;
  const app = new Elysia({ name: 'sobranie-console', detail: { hide: true } })
    .use(pageFiles(files))
    .use(clientFile('/console/sobranie.js'))
    .get('/console/state', async ({ request }) => {
      requireAdmin(request);
      const [channels, watches, health] = await Promise.all([
        cluster.channelCounts(),
        options.watches()?.catch(() => undefined),
        options.health(),
      ]);
      const busiest = channels.value.toSorted((one, other) => other.subscribers - one.subscribers);
      return answer({
        node: options.node,
        version: options.version,
        sync: options.sync,
        nodes: cluster.nodes(),
        channels: { total: busiest.length, some: busiest.slice(0, channelsMax), incomplete: channels.incomplete },
        watches: watches ?? null,
        errors: options.errors(),
        health,
      });
    })
    .get('/console/rates', async ({ request }) => {
      requireAdmin(request);
      const after = wholeNumberOf(queryOf(request).get('after') ?? '0');
      if (after === undefined) throw new RealtimeError('bad_request', '"after" is the number of a step.');
      const { value, incomplete } = await cluster.rates(after);
      return answer({ stepMs: rateStepMs, ...value, incomplete });
    })
    // As `/metrics`, which a gateway or the application around may keep for itself.
    .get('/console/metrics', async ({ request }) => {
      requireAdmin(request);
      const { contentType, body } = await options.metrics();
      return new Response(body, { headers: { ...privateHeaders, 'content-type': contentType } });
    })
    .get('/console/users/:user', async ({ request, params }) => {
      requireAdmin(request);
      return answer({ connections: (await cluster.userConnections(requireUser(params.user))).value });
    })
    .post(
      '/console/users/:user/disconnect',
      async ({ request, params }) => {
        requireAdmin(request);
        return answer({ connections: (await cluster.disconnect(requireUser(params.user))).value });
      },
      { parse: 'none' },
    )
    .post(
      '/console/ticket',
      async ({ request }) => {
        requireAdmin(request);
        const { members } = await readJsonBody(request, bodyLimit);
        return answer(await options.ticket(requireChannel(members['channel'])));
      },
      { parse: 'none' },
    )
    .post(
      '/console/publish',
      async ({ request }) => {
        requireAdmin(request);
        const { text, members } = await readJsonBody(request, bodyLimit);
        const channel = requireChannel(members['channel']);
        if (isServerChannel(channel))
          throw new RealtimeError('forbidden', 'Channels that begin with $ are the server’s.');
        const data = memberText(text, 'data');
        if (data === undefined) throw new RealtimeError('bad_request', '"data" is missing.');
        const position = await hub.publish({ channel, data: singleLine(data), key: undefined, source: 'api' });
        return answer({ channel, ...position });
      },
      { parse: 'none' },
    );
  return app as unknown as Elysia;
}

/** What the operator sees is nobody else's, and of this moment. */
function answer(body: object): Response {
  return Response.json(body, { headers: privateHeaders });
}

function requireUser(user: string): string {
  if (!isUser(user)) throw new RealtimeError('bad_request', `The user is not ${userShape}.`);
  return user;
}
