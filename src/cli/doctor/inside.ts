// The checks of what the node itself sees of a request, which it tells the operator: the client's address, clocks,
// versions, and whether connections between the gateway and the node are kept.

import packageJson from '../../../package.json' with { type: 'json' };
import { Exchange } from './exchange.ts';
import { fail, ok, skip, warn, type Finding } from './finding.ts';
import type { SeenRequest, Visit } from './visit.ts';

const skewMsMax = 2_000;
/** Of documentation alone: nobody has it. */
const forgedAddress = '203.0.113.77';

export async function checkInside(visit: Visit, seen: SeenRequest | undefined): Promise<Finding[]> {
  if (seen === undefined) {
    const why = 'needs the operator’s key (--admin-key or ADMIN_KEY)';
    return ['address', 'connections', 'clock', 'version'].map((check) => skip(check, why));
  }
  return [await checkAddress(visit, seen), await checkConnections(visit), checkClock(seen), checkVersion(seen)];
}

async function checkAddress(visit: Visit, seen: SeenRequest): Promise<Finding> {
  const { address, peer, headers } = seen;
  if (peer?.address === (await ownAddress(visit)) && !isBehindGateway(headers)) {
    return ok('address', `the node sees ${address}, directly`);
  }
  const forged = await visit.seen({ 'X-Forwarded-For': forgedAddress });
  if (forged?.address === forgedAddress) {
    return fail('address', 'a client may choose its address: the node believes its X-Forwarded-For', 'forged');
  }
  if (headers['x-forwarded-for'] === undefined) {
    return fail('address', `the node takes every client for ${address}: no X-Forwarded-For arrives`, 'address');
  }
  const named = headers['x-forwarded-for'].split(',').at(-1)?.trim();
  if (address === peer?.address && address !== named) {
    return fail(
      'address',
      `the node takes every client for ${address}, the gateway: TRUSTED_PROXIES does not name it`,
      'address',
    );
  }
  return ok('address', `the node sees ${address}`);
}

function isBehindGateway(headers: Readonly<Record<string, string>>): boolean {
  return [
    'x-forwarded-for',
    'x-forwarded-proto',
    'x-forwarded-host',
    'x-real-ip',
    'via',
    'forwarded',
    'x-retry-on',
  ].some((name) => headers[name] !== undefined);
}

async function ownAddress(visit: Visit): Promise<string> {
  const exchange = await Exchange.open(visit.url, { path: '/realtime/events' });
  exchange.close();
  return exchange.localAddress;
}

/** More than connections that a gateway may have kept from whatever came before. */
const requests = 20;

/** From a gateway that keeps no connections, each request of one client comes from another port. */
async function checkConnections(visit: Visit): Promise<Finding> {
  const all = await visit.seenInARow(requests);
  const forwarded = all.some(({ headers }) => isBehindGateway(headers));
  if (!forwarded) return ok('connections', 'no gateway shows itself');
  const message = 'the gateway opens a connection to the node for each request, as HTTP/1.0 does';
  if (all.some(({ headers }) => headers['connection'] === 'close')) {
    return fail('connections', `${message}: it sends Connection: close`, 'http10');
  }
  const ports = new Set(all.map(({ node, peer }) => `${node} ${peer?.port}`));
  if (all.length === requests && ports.size === requests) return warn('connections', message, 'http10');
  return ok('connections', 'the gateway keeps those to nodes');
}

function checkClock({ at, node }: SeenRequest): Finding {
  const skew = at - Date.now();
  if (Math.abs(skew) <= skewMsMax) return ok('clock', `that of ${node} and this one agree`);
  const seconds = Math.abs(skew / 1_000).toFixed(0);
  return warn(
    'clock',
    `that of ${node} is ${seconds} s ${skew > 0 ? 'ahead' : 'behind'}: tokens end at other moments there`,
  );
}

function checkVersion({ version, node }: SeenRequest): Finding {
  if (version === packageJson.version) return ok('version', `${node} is ${version}, as this command`);
  return warn('version', `${node} is ${version}, this command ${packageJson.version}`);
}
