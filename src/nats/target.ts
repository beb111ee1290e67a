// Where NATS is, read from its URL: `nats://user:password@host:4222,host:4222`, or `tls://` for TLS. Several URLs with a
// comma between them, as other clients of NATS take them, are the same where they agree about account and TLS.

export interface NatsTarget {
  /** `host:port` of each server that was named. */
  readonly servers: readonly string[];
  readonly tls: boolean;
  readonly account: { readonly user: string; readonly pass: string } | { readonly token: string } | undefined;
  /** The text of a credentials file. */
  readonly credentials?: string | undefined;
  /** Certificates of authorities, in PEM form. */
  readonly tlsCa?: string | undefined;
}

const form = /^(nats|tls):\/\/(?:([^/?#]*)@)?([^/?#@]+)\/?$/;
/** Between two URLs of a list. */
const nextUrl = /\/?,(?=[a-z]+:\/\/)/;
const hostForm = /^(?:\[[\dA-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?$/;

/** Throws an error that shows none of the text: a password may be anywhere. */
export function parseNatsUrl(text: string): NatsTarget {
  if (/\bwss?:\/\//.test(text)) throw new Error('WebSocket is not spoken to NATS: write nats://, or tls:// for TLS');
  const urls = text.split(nextUrl).map((each) => form.exec(each) ?? []);
  if (urls.some(([whole]) => whole === undefined)) {
    throw new Error('the URL does not have the form nats://user:password@host:port,host:port');
  }
  const [, scheme, account] = urls[0] ?? [];
  if (urls.some(([, other]) => other !== scheme)) throw new Error('some servers are named with TLS and some without');
  if (urls.some(([, , other]) => other !== undefined && other !== account)) {
    throw new Error('the servers are named with different accounts: all must let the same one in');
  }
  const servers = urls.flatMap(([, , , hosts = '']) => hosts.split(','));
  if (!servers.every((host) => hostForm.test(host))) throw new Error('a host of the URL is not valid');
  return {
    servers: servers.map((host) => (/:\d+$/.test(host) ? host : `${host}:4222`)),
    tls: scheme === 'tls',
    account: account === undefined ? undefined : parseAccount(account),
  };
}

/** What is wrong with the URL; undefined when it is one. */
export function natsUrlFault(text: string): string | undefined {
  try {
    parseNatsUrl(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function parseAccount(text: string): NatsTarget['account'] {
  const colon = text.indexOf(':');
  if (colon === -1) return { token: decode(text) };
  return { user: decode(text.slice(0, colon)), pass: decode(text.slice(colon + 1)) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('a % is not followed by two hexadecimal digits');
  }
}
