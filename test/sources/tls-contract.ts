// What every source must keep whose broker has a certificate of a private authority: it is read with that authority and
// never without it, and where the broker and the URL do not agree about TLS, health names the setting to mend. No password
// is told.

import { expect } from 'bun:test';
import { startNode, stopNodes } from '../support/nodes.ts';
import type { RunningServer } from '../support/process.ts';
import { makeCertificates, type TestCertificates } from '../support/redis-certificates.ts';
import { until } from '../support/tcp-client.ts';
import { SourceStage } from './source-contract.ts';

/** Enters as `account`. */
export interface TlsBroker {
  /** Of its setting of an authority. */
  readonly setting: string;
  readonly certificates: TestCertificates;
  /** How a URL begins, with TLS and without. */
  readonly schemes: readonly [tls: string, plain: string];
  /** `host:port`, where it speaks TLS. */
  readonly tlsPlace: string;
  /** Where it does not. */
  readonly plainPlace: string;
  /** Of the kind and of what to read, as source text, left open. */
  readonly source: string;
  /** Sends one message, whose body is `1`. */
  send(): Promise<void>;
}

export const account = { user: 'ann', password: 'p@ss-word' };
const encoded = `${account.user}:${encodeURIComponent(account.password)}@`;

export async function keepsToTls(broker: TlsBroker): Promise<void> {
  const { setting, certificates, schemes, tlsPlace, plainPlace, source, send } = broker;
  const [tls, plain] = schemes;
  const named = (name: string, url: string): string =>
    `{ ${source}, name: '${name}', channel: '${name}', url: '${url}' } }`;
  const right = named('right', `${tls}${encoded}${tlsPlace}`);
  const wrong = [
    named('none-there', `${tls}${encoded}${plainPlace}`),
    named('wanted', `${plain}${encoded}${tlsPlace}`),
  ];
  const stage = await SourceStage.open(right, { SYNC: 'postgres' });
  const failing = await SourceStage.open([right, ...wrong].join(), { SYNC: 'postgres' });
  try {
    await send();
    const untrusted = `its certificate is not trusted: ${setting} names the authority that signed it`;
    const own = { DATABASE_URL: stage.database.url, CONFIG_FILE: stage.rules.path, SYNC: 'postgres' };
    const [strange, other] = await Promise.all([
      failing.startNode(),
      startNode({ ...own, [setting]: makeCertificates().authority }),
    ]);
    const strangeSays = says(strange, [
      untrusted,
      'begin the `url` of the source without TLS, or let it lead to the port that speaks it',
      // NATS says that it speaks TLS, and the driver goes on with it.
      ...(plain === 'nats://' ? [] : [`if it speaks TLS at that port, begin the \`url\` of the source with ${tls}`]),
    ]);
    await Promise.all([strangeSays, says(other, [untrusted])]);
    await Promise.all([failing.stopNode(strange), stopNodes([other])]);
    expect(await stage.logged('right')).toBe(0);
    const node = await startNode({ ...own, [setting]: certificates.authority });
    await until(async () => (await stage.logged('right')) === 1, 'it is read', 60_000, 50);
    await stopNodes([node]);
    for (const { stdout, stderr } of [strange, other, node]) expect(stdout() + stderr()).not.toContain('ss-word');
  } finally {
    await Promise.all([stage.close(), failing.close()]);
  }
}

async function says(node: RunningServer, sentences: readonly string[]): Promise<void> {
  let last = '';
  const isSaid = async (): Promise<boolean> => {
    const response = await fetch(`${node.url}/health/ready`, { signal: AbortSignal.timeout(20_000) });
    const { checks } = (await response.json()) as { checks: Record<string, { lastError?: { message: string } }> };
    last = checks['sources']?.lastError?.message ?? '';
    return sentences.every((sentence) => last.includes(sentence));
  };
  await until(isSaid, () => `the node says why it cannot read: ${last}`, 60_000, 50);
}
