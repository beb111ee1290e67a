// The presence store over Redis. Scripts change the members of a channel, count the change and publish it in one step;
// what is published is heard over the connections of the sync adapter.
//
// Beside the keys of a channel (see `presence-scripts.ts`):
//
//   presence:nodes      sorted set: node → when it dies, by the clock of Redis
//   presence:of:<node>  set: channels in which the node may have members. A channel is added before the first of them

import { Cluster, type Redis } from 'ioredis';
import type {
  Applied,
  BuriedMember,
  Change,
  ListVersion,
  PresenceEvents,
  PresenceStore,
  SignOfLife,
  Snapshot,
  StoredMember,
} from '../../presence/store.ts';
import { readTold } from '../../presence/told-line.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { withoutArguments } from '../../redis/error.ts';
import { answerTimeoutMs } from '../../redis/target.ts';
import { within } from '../../time/within.ts';
import type { RedisAdapter } from './adapter.ts';
import { applyScript, buryScript, endScript, liveScript, readScript, suspectScript } from './presence-scripts.ts';

interface Scripted {
  presenceApply(...args: (string | number)[]): Promise<[epoch: string, version: string, answers: string[]]>;
  presenceBury(...args: (string | number)[]): Promise<[left: number, told: string[]]>;
  presenceRead(...args: (string | number)[]): Promise<[head: string | null, cursor: string, page: string[]]>;
  presenceLive(...args: (string | number)[]): Promise<[known: number, nextMs: number, dead: string[]]>;
  presenceEnd(...args: (string | number)[]): Promise<number>;
  presenceSuspect(...args: (string | number)[]): Promise<string[]>;
}

export interface RedisPresenceOptions {
  readonly client: Redis | Cluster;
  /** Over whose connections changes are heard. */
  readonly adapter: RedisAdapter;
  readonly prefix: string;
}

/** Members that one script reads, or removes: others of the server wait for it. */
const pageSize = 1_000;
const buriedAtOnce = 200;
/** Channels of a dead node that are looked at in one call. */
const channelsAtOnce = 20;
/** A server answers for all of them in one command, which takes it some 0.1 ms. */
const positionsMax = 500;
/** Each channel has a slot of its own, and a command can ask for one slot only. */
const positionsMaxInCluster = 20;

export class RedisPresence implements PresenceStore {
  readonly positionsMax: number;
  readonly #client: (Redis | Cluster) & Scripted;
  readonly #adapter: RedisAdapter;
  readonly #prefix: string;
  /** Channels that `presence:of:` names for this node. */
  readonly #registered = new Set<string>();
  #node = '';
  #events: PresenceEvents | undefined;

  constructor({ client, adapter, prefix }: RedisPresenceOptions) {
    client.defineCommand('presenceApply', { numberOfKeys: 4, lua: applyScript });
    client.defineCommand('presenceBury', { numberOfKeys: 4, lua: buryScript });
    client.defineCommand('presenceRead', { numberOfKeys: 2, lua: readScript });
    client.defineCommand('presenceLive', { numberOfKeys: 1, lua: liveScript });
    client.defineCommand('presenceEnd', { numberOfKeys: 1, lua: endScript });
    client.defineCommand('presenceSuspect', { numberOfKeys: 1, lua: suspectScript });
    this.positionsMax = client instanceof Cluster ? positionsMaxInCluster : positionsMax;
    this.#client = client as (Redis | Cluster) & Scripted;
    this.#adapter = adapter;
    this.#prefix = prefix;
  }

  start(events: PresenceEvents): void {
    this.#events = events;
    this.#adapter.hearBeside({
      message: (channel, message) => this.#heard(channel, message),
      interrupted: () => events.interrupted(),
    });
  }

  async apply(node: string, changes: readonly Change[]): Promise<readonly Applied[]> {
    const byChannel = Map.groupBy(changes, ({ channel }) => channel);
    await this.#register(node, [...byChannel.keys()]);
    const answered = await Promise.all(
      Array.from(byChannel, async ([channel, theirs]) => {
        return [channel, (await this.#applyTo(node, channel, theirs)).values()] as const;
      }),
    );
    // Of each channel in order, so that one change that is asked for twice is answered twice.
    const answers = new Map(answered);
    return changes.map(({ channel }) => {
      const applied = answers.get(channel)?.next().value;
      if (applied === undefined) throw new Error('a script left a change unanswered');
      return applied;
    });
  }

  async watch(channel: string): Promise<void> {
    await this.#adapter.listenBeside(channel);
  }

  unwatch(channel: string): void {
    this.#adapter.leaveBeside(channel);
    if (!this.#registered.delete(channel)) return;
    // What stays behind is looked at once more when this node has ended.
    this.#client.srem(this.#channelsOf(this.#node), channel).catch(() => undefined);
  }

  async read(channel: string): Promise<Snapshot> {
    const members = new Map<string, StoredMember>();
    const read = (cursor: string) =>
      this.#available(this.#client.presenceRead(this.#key('ph', channel), this.#key('pm', channel), cursor, pageSize));
    const [head, ...first] = await read('0');
    const { epoch, version } = parseHead(head);
    let last = head;
    for (let [cursor, page] = first; ; [last, cursor, page] = await read(cursor)) {
      for (let at = 0; at + 1 < page.length; at += 2) {
        const [node = '', , member = ''] = (page[at + 1] ?? '').split('\n');
        const connection = page[at] ?? '';
        members.set(connection, { connection, node, member });
      }
      if (cursor === '0') break;
    }
    const upTo = parseHead(last).version;
    const snapshot = { epoch, version, members: [...members.values()] };
    return upTo === version ? snapshot : { ...snapshot, upTo };
  }

  async positions(channels: readonly string[]): Promise<readonly ListVersion[]> {
    const client = this.#client;
    const keys = channels.map((channel) => this.#key('ph', channel));
    const heads = client instanceof Cluster ? Promise.all(keys.map((key) => client.get(key))) : client.mget(keys);
    return (await this.#available(heads)).map(parseHead);
  }

  async live(node: string, milliseconds: number): Promise<SignOfLife> {
    const [known, nextMs, dead] = await this.#available(this.#client.presenceLive(this.#nodes, node, milliseconds));
    return { isKnown: known === 1, dead, nextDeathMs: nextMs < 0 ? undefined : nextMs };
  }

  async end(node: string, milliseconds: number): Promise<void> {
    await this.#available(this.#client.presenceEnd(this.#nodes, node, milliseconds));
  }

  async suspect(channel: string, nodes: readonly string[], milliseconds: number): Promise<void> {
    const unknown = await this.#available(this.#client.presenceSuspect(this.#nodes, milliseconds, ...nodes));
    await Promise.all(unknown.map((node) => this.#available(this.#client.sadd(this.#channelsOf(node), channel))));
  }

  async bury(node: string): Promise<{ isDone: boolean; told: readonly BuriedMember[] }> {
    const channels = await this.#available(this.#client.srandmember(this.#channelsOf(node), channelsAtOnce));
    const told: BuriedMember[] = [];
    for (const channel of channels) {
      const [left, lines] = await this.#available(
        this.#client.presenceBury(...this.#keys(channel, node), ...this.#publishing(channel), node, buriedAtOnce),
      );
      told.push(...lines.map((line) => ({ channel, told: readTold(line) })));
      if (left === 0) await this.#available(this.#client.srem(this.#channelsOf(node), channel));
      if (told.length >= buriedAtOnce) return { isDone: false, told };
    }
    if (channels.length === channelsAtOnce) return { isDone: false, told };
    await this.#available(this.#client.zrem(this.#nodes, node));
    return { isDone: true, told };
  }

  close(): Promise<void> {
    this.#events = undefined;
    return Promise.resolve();
  }

  async #applyTo(node: string, channel: string, changes: readonly Change[]): Promise<Applied[]> {
    const [epoch, version, answers] = await this.#available(
      this.#client.presenceApply(
        ...this.#keys(channel, node),
        ...this.#publishing(channel),
        node,
        ...changes.flatMap(argumentsOf),
      ),
    );
    return answers.map((answer) => ({
      epoch,
      version: Number(version),
      told: answer === '' || answer === 'full' ? undefined : readTold(answer),
      isFull: answer === 'full',
    }));
  }

  /** Whoever buries this node has to find its members. */
  async #register(node: string, channels: readonly string[]): Promise<void> {
    if (node !== this.#node) this.#registered.clear();
    this.#node = node;
    const fresh = channels.filter((channel) => !this.#registered.has(channel));
    if (fresh.length === 0) return;
    await this.#available(this.#client.sadd(this.#channelsOf(node), ...fresh));
    for (const channel of fresh) this.#registered.add(channel);
  }

  #heard(channel: string, message: string): void {
    const [epoch = '', ...lines] = message.split('\n');
    this.#events?.changed(channel, epoch, lines.map(readTold));
  }

  #keys(channel: string, node: string): [string, string, string, string] {
    const [head, members, users] = ['ph', 'pm', 'pu'].map((kind) => this.#key(kind, channel));
    return [head ?? '', members ?? '', users ?? '', `${this.#key('pn', channel)}:${node}`];
  }

  #key(kind: string, channel: string): string {
    return `${this.#prefix}:${kind}:{${channel}}`;
  }

  get #nodes(): string {
    return `${this.#prefix}:presence:nodes`;
  }

  #channelsOf(node: string): string {
    return `${this.#prefix}:presence:of:${node}`;
  }

  #publishing(channel: string): [command: string, topic: string] {
    return [this.#adapter.publishCommand, this.#adapter.topicBeside(channel)];
  }

  /** Whatever the driver rejects with becomes `unavailable`, in time. */
  async #available<Value>(answer: Promise<Value> | Value): Promise<Value> {
    try {
      // A cluster's client tries again by itself. And of one server's commands some never settle where the connection goes
      // just then, whatever limit the driver has.
      return await (answer instanceof Promise ? within(answer, answerTimeoutMs, 'a command to Redis') : answer);
    } catch (error) {
      if (error instanceof RealtimeError) throw error;
      throw new RealtimeError('unavailable', undefined, { cause: withoutArguments(error) });
    }
  }
}

/** As the scripts write it; null where nothing is known of the channel. */
function parseHead(head: string | null): ListVersion {
  const [epoch = '', version = '0'] = head?.split(' ') ?? [];
  return { epoch, version: Number(version) };
}

function argumentsOf(change: Change): (string | number)[] {
  if (change.kind !== 'enter') return [change.kind, change.connection, '', '', '', 0];
  const { connection, member, membersMax } = change;
  const { user, data } = member;
  return ['enter', connection, user ?? '', user === null ? 'null' : JSON.stringify(user), data, membersMax];
}
