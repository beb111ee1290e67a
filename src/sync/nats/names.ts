// Names in NATS: the streams, and the subjects of channels. A channel is one word of a subject, so its dots are written
// as `~`, which no channel holds.

export class NatsNames {
  /** Counts and keeps the publications of all recoverable channels. */
  readonly logStream: string;
  /** Keeps data that are too large for a header. */
  readonly dataStream: string;
  /** Begins all of them. */
  readonly prefix: string;

  constructor(prefix: string) {
    this.prefix = prefix;
    this.logStream = `${prefix}_log`;
    this.dataStream = `${prefix}_data`;
  }

  get logs(): string {
    return `${this.prefix}.log.*`;
  }

  /** Where the server repeats what the log took, with its count; `{{…}}` is the server's own notation. */
  get repeated(): string {
    return `${this.prefix}.live.{{wildcard(1)}}`;
  }

  get allData(): string {
    return `${this.prefix}.data.*.*`;
  }

  log(channel: string): string {
    return `${this.prefix}.log.${word(channel)}`;
  }

  live(channel: string): string {
    return `${this.prefix}.live.${word(channel)}`;
  }

  ephemeral(channel: string): string {
    return `${this.prefix}.ephemeral.${word(channel)}`;
  }

  part(id: string, index: number): string {
    return `${this.prefix}.data.${id}.${index}`;
  }

  /** The name of this NATS. The ids of data are longer. */
  get layer(): string {
    return `${this.prefix}.data.layer.name`;
  }

  /** Nodes ask each other whether their servers know of a subscription. */
  get interest(): string {
    return `${this.prefix}.interest`;
  }

  answers(question: string): string {
    return `${this.prefix}.answers.${word(question)}`;
  }

  probe(node: string): string {
    return `${this.prefix}.probe.${word(node)}`;
  }
}

function word(name: string): string {
  return name.replaceAll('.', '~');
}
