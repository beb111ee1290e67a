// Where Kafka is, read from its URL: `kafka://user:password@host:9092,host:9092?sasl=scram-sha-512`, or `kafka+ssl://` for
// TLS. Several URLs with a comma between them are the same where they agree about account and TLS.

export interface KafkaTarget {
  /** `host:port` of each broker that was named; they know the others. */
  readonly brokers: readonly string[];
  readonly tls: boolean;
  readonly account: KafkaAccount | undefined;
  /** Certificates of authorities, in PEM form. */
  readonly tlsCa?: string | undefined;
}

export interface KafkaAccount {
  readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512';
  readonly username: string;
  readonly password: string;
}

const form = /^(kafka|kafka\+ssl):\/\/(?:([^/?#@]*)@)?([^/?#@]+)\/?(?:\?([^#]*))?$/;
/** Between two URLs of a list. */
const nextUrl = /\/?,(?=[a-z+]+:\/\/)/;
const hostForm = /^(?:\[[\dA-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?$/;
const mechanisms = { plain: 'PLAIN', 'scram-sha-256': 'SCRAM-SHA-256', 'scram-sha-512': 'SCRAM-SHA-512' } as const;

/** Throws an error that shows none of the text: a password may be anywhere. */
export function parseKafkaUrl(text: string): KafkaTarget {
  const urls = text.split(nextUrl).map((each) => form.exec(each) ?? []);
  if (urls.some(([whole]) => whole === undefined)) {
    throw new Error('the URL does not have the form kafka://user:password@host:port,host:port');
  }
  const [, scheme, account] = urls[0] ?? [];
  if (urls.some(([, other]) => other !== scheme)) throw new Error('some brokers are named with TLS and some without');
  if (urls.some(([, , other]) => other !== undefined && other !== account)) {
    throw new Error('the brokers are named with different accounts: all must let the same one in');
  }
  const options = new URLSearchParams(urls.flatMap(([, , , , query]) => query ?? []).join('&'));
  if ([...options.keys()].some((name) => name !== 'sasl')) throw new Error('only ?sasl= may stand behind the hosts');
  const hosts = urls.flatMap(([, , , each = '']) => each.split(','));
  return {
    brokers: hosts.map(brokerOf),
    tls: scheme === 'kafka+ssl',
    account: accountOf(account, options.get('sasl') ?? undefined),
  };
}

/** What is wrong with the URL; undefined when it is one. */
export function kafkaUrlFault(text: string): string | undefined {
  try {
    parseKafkaUrl(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function brokerOf(host: string): string {
  const [whole, port = '9092'] = hostForm.exec(host) ?? [];
  if (whole === undefined) throw new Error('a host of the URL is not valid');
  if (Number(port) < 1 || Number(port) > 65_535) throw new Error('a port of the URL is not valid');
  return whole.endsWith(`:${port}`) ? whole : `${whole}:${port}`;
}

function accountOf(text: string | undefined, sasl: string | undefined): KafkaAccount | undefined {
  if (text === undefined) {
    if (sasl !== undefined) throw new Error('?sasl= needs a user and a password before the host');
    return undefined;
  }
  const [username = '', password] = text.split(':', 2).map(decode);
  if (username === '' || password === undefined) throw new Error('the user, or its password, is missing');
  const mechanism = Object.entries(mechanisms).find(([name]) => name === (sasl ?? 'plain').toLowerCase())?.[1];
  if (mechanism === undefined) throw new Error(`?sasl= may be ${Object.keys(mechanisms).join(', ')}`);
  return { mechanism, username, password };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('a % is not followed by two hexadecimal digits');
  }
}
