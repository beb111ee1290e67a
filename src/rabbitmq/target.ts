// Where RabbitMQ is, read from its URL: `amqp://user:password@host:5672/vhost`, or `amqps://` for TLS.

export interface RabbitTarget {
  readonly protocol: 'amqp' | 'amqps';
  readonly hostname: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  readonly vhost: string;
  /** Certificates of authorities, in PEM form. */
  readonly tlsCa?: string | undefined;
}

const form =
  /^(amqps?):\/\/(?:([^/?#:@]*)(?::([^/?#@]*))?@)?(\[[\dA-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?(?:\/([^/?#]*))?$/;

/** Throws an error that shows none of the text: a password may be anywhere. */
export function parseRabbitUrl(text: string): RabbitTarget {
  const [, scheme, user, password, host = '', port, vhost] = form.exec(text) ?? [];
  if (scheme === undefined) throw new Error('the URL does not have the form amqp://user:password@host:5672/vhost');
  const protocol = scheme === 'amqps' ? 'amqps' : 'amqp';
  if (Number(port ?? 1) < 1 || Number(port ?? 1) > 65_535) throw new Error('the port of the URL is not valid');
  return {
    protocol,
    hostname: host.replace(/^\[|\]$/g, ''),
    port: Number(port ?? (protocol === 'amqps' ? 5_671 : 5_672)),
    username: decode(user ?? 'guest'),
    password: decode(password ?? (user === undefined ? 'guest' : '')),
    // An empty path, with or without its slash, is the virtual host that a new server has.
    vhost: decode(vhost ?? '') || '/',
  };
}

/** What is wrong with the URL; undefined when it is one. */
export function rabbitUrlFault(text: string): string | undefined {
  try {
    parseRabbitUrl(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('a % is not followed by two hexadecimal digits');
  }
}
