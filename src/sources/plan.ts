// What becomes of each message of a batch: publications, nothing, or a parked row with its error. The functions of the
// configuration are called here; whatever they throw or answer, the batch goes on.

import { channelLengthMax, isChannelName, isServerChannel } from '../protocol/channel.ts';
import { isNestedTooDeeply, nestingMax, singleLine } from '../protocol/json-text.ts';
import type { NamedSource, SourceMessage } from '../rules/source-config.ts';
import type { RawMessage } from './source.ts';

export interface Entry {
  readonly channel: string;
  /** JSON text on one line. */
  readonly data: string;
}

export interface Parked {
  /** What the source answered for it, as far as it can be told. */
  readonly channel: string;
  readonly body: Uint8Array;
  readonly error: string;
}

export interface Plan {
  readonly entries: readonly Entry[];
  readonly parked: readonly Parked[];
  /** Messages that become at least one publication, and those that the source leaves out. */
  readonly published: number;
  readonly skipped: number;
}

/** Of one message. */
const channelsMax = 100;
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** A message cannot be published. */
class Poison extends Error {
  readonly channel: string;

  constructor(message: string, channel = '', cause?: unknown) {
    super(message, { cause });
    this.name = 'Poison';
    this.channel = channel;
  }
}

export function planOf(
  source: NamedSource,
  partition: string,
  messages: readonly RawMessage[],
  messageBytesMax: number,
): Plan {
  const entries: Entry[] = [];
  const parked: Parked[] = [];
  let published = 0;
  for (const raw of messages) {
    try {
      const made = entriesOf(source, partition, raw, messageBytesMax);
      if (made.length > 0) published++;
      entries.push(...made);
    } catch (error) {
      if (!(error instanceof Poison)) throw error;
      const at = `source ${source.name}, partition ${partition}, position ${raw.position}`;
      const body = typeof raw.body === 'string' ? encoder.encode(raw.body) : raw.body;
      parked.push({ channel: error.channel, body, error: `${at}: ${error.message}` });
    }
  }
  return { entries, parked, published, skipped: messages.length - published - parked.length };
}

/** Throws `Poison`. */
function entriesOf(
  { name, options }: NamedSource,
  partition: string,
  raw: RawMessage,
  messageBytesMax: number,
): readonly Entry[] {
  const text = textOf(raw.body);
  const message = new Message(name, partition, raw, text);
  const { channel: chosen, data: makeData } = options;
  const answered: unknown = typeof chosen === 'string' ? chosen : called('channel', () => chosen(message));
  const channels = channelsOf(answered);
  const [first] = channels;
  if (first === undefined) return [];
  const data =
    makeData === undefined
      ? text
      : printed(
          called('data', () => makeData(message), first),
          first,
        );
  if (makeData === undefined) message.requireJson(first);
  if (isNestedTooDeeply(data)) throw new Poison(`the data is nested more than ${nestingMax} deep`, first);
  if (data.length * 3 > messageBytesMax && encoder.encode(data).length > messageBytesMax) {
    throw new Poison(`the data is larger than ${messageBytesMax} bytes (MAX_MESSAGE_BYTES)`, first);
  }
  const line = singleLine(data);
  return channels.map((channel) => ({ channel, data: line }));
}

/** What the functions see. The body is parsed when somebody asks for it. */
class Message implements SourceMessage {
  readonly source: string;
  readonly partition: string;
  readonly topic: string;
  readonly key: string | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  readonly at: number | undefined;
  #json: { readonly value: unknown } | undefined;

  constructor(source: string, partition: string, { topic, key, headers, at }: RawMessage, text: string) {
    this.source = source;
    this.partition = partition;
    this.topic = topic;
    this.key = key;
    this.headers = headers;
    this.text = text;
    this.at = at;
  }

  get json(): unknown {
    this.#json ??= { value: JSON.parse(this.text) as unknown };
    return this.#json.value;
  }

  /** Throws `Poison`. */
  requireJson(channel: string): void {
    try {
      void this.json;
    } catch (error) {
      throw new Poison(`the body is not JSON: ${reasonOf(error)}`, channel, error);
    }
  }
}

function textOf(body: Uint8Array | string): string {
  if (typeof body === 'string') return body;
  try {
    return decoder.decode(body);
  } catch (error) {
    throw new Poison('the body is not UTF-8', '', error);
  }
}

function called(name: string, call: () => unknown, channel = ''): unknown {
  let answer: unknown;
  try {
    answer = call();
  } catch (error) {
    throw new Poison(`${name}: ${reasonOf(error)}`, channel, error);
  }
  if (!(answer instanceof Promise)) return answer;
  // Nobody will wait for it, and a rejection that nobody hears would end the process.
  answer.catch(() => undefined);
  throw new Poison(`${name}: it answered a promise; the functions of a source answer at once`, channel);
}

function channelsOf(answered: unknown): readonly string[] {
  if (answered === undefined || answered === null) return [];
  const list: readonly unknown[] = Array.isArray(answered) ? answered : [answered];
  if (list.length > channelsMax) throw new Poison(`channel: it answered more than ${channelsMax} channels`);
  const channels = list.map((channel) => {
    if (isChannelName(channel) && !isServerChannel(channel)) return channel;
    const shown = typeof channel === 'string' ? channel.slice(0, channelLengthMax) : '';
    throw new Poison(
      typeof channel === 'string' ? `channel: "${shown}" is not a channel` : `channel: it answered a ${typeof channel}`,
      shown,
    );
  });
  return [...new Set(channels)];
}

function printed(value: unknown, channel: string): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    throw new Poison(`data: ${reasonOf(error)}`, channel, error);
  }
  if (text === undefined) throw new Poison('data: it answered nothing that is JSON', channel);
  return text;
}

function reasonOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error);
  } catch {
    // An object may say no.
    return 'it threw something that is no error';
  }
}
