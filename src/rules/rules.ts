// Channel rules: how much of a channel's history is kept, and who may do what. The first rule that matches a name
// decides everything about it. What can be wrong with a configuration stands in faults.ts.

import { ChannelPattern } from './pattern.ts';
import {
  actions,
  type Action,
  type Authorize,
  type OlderRows,
  type RealtimeConfig,
  type RuleConfig,
  type SnapshotRows,
  type Who,
} from './config.ts';
import { configFaults } from './faults.ts';
import { namedSources, type NamedSource } from './source-config.ts';

/**
 * How a channel's log is kept: what the hub and the adapters work with. One object per rule, shared by its channels.
 */
export interface ChannelRule {
  /** Source of an anchored regular expression, valid in JavaScript and in PostgreSQL. */
  readonly pattern: string;
  readonly recoverable: boolean;
  /** Publications kept per channel; 0 on ephemeral ones. */
  readonly historySize: number;
  /** Age in seconds past which a publication is not kept. */
  readonly historySeconds: number;
}

/** Who may use a channel. */
export interface AccessRule {
  readonly pattern: ChannelPattern;
  /** What the rule says itself. An action that it leaves out has the default. */
  readonly allow: { readonly [Each in Action]?: ReadonlySet<Who> };
  readonly authorize: Authorize | undefined;
  readonly subscribersMax: number | undefined;
  readonly membersMax: number;
}

export const historySizeDefault = 1_000;
export const historySecondsDefault = 3_600;
/** Each node that has a member keeps the list of all. */
export const membersMaxDefault = 10_000;
const cacheSecondsDefault = 5;
/** A right that is withdrawn must end within a second, even if nobody answers. */
const timeoutMsDefault = 800;
const nothing: readonly string[] = [];
/** How many channels' rules are remembered. */
const rememberedMax = 1_000;

/** Which rows a channel describes. */
export interface RowsRule {
  readonly pattern: ChannelPattern;
  readonly snapshot: SnapshotRows | undefined;
  readonly older: OlderRows | undefined;
}

interface Rule extends RowsRule {
  readonly log: ChannelRule;
  readonly access: AccessRule;
  /** Connections are subscribed by themselves. */
  readonly isJoined: boolean;
}

function compileRule(config: RuleConfig): Rule {
  const pattern = new ChannelPattern(config.channels);
  const recoverable = config.recoverable ?? true;
  return {
    pattern,
    isJoined: config.join === 'always',
    snapshot: config.snapshot,
    older: config.older,
    log: {
      pattern: pattern.source,
      recoverable,
      historySize: recoverable ? (config.history?.size ?? historySizeDefault) : 0,
      historySeconds: recoverable ? (config.history?.seconds ?? historySecondsDefault) : 0,
    },
    access: {
      pattern,
      allow: compileAllow(config),
      authorize: config.authorize,
      subscribersMax: config.subscribersMax,
      membersMax: config.membersMax ?? membersMaxDefault,
    },
  };
}

function compileAllow({ allow, authorize }: RuleConfig): AccessRule['allow'] {
  const compiled: { [Each in Action]?: ReadonlySet<Who> } = {};
  for (const action of actions) {
    const who = allow?.[action] ?? (authorize === undefined ? undefined : 'authorize');
    if (who !== undefined) compiled[action] = new Set(typeof who === 'string' ? [who] : who);
  }
  return compiled;
}

/** The rules in force: finds a channel's rule. */
export class Rules {
  /** In order; the last one matches every name, so that each channel has a rule. */
  readonly all: readonly ChannelRule[];
  readonly authorize: { readonly cacheSeconds: number; readonly timeoutMs: number };
  readonly sources: readonly NamedSource[];
  readonly #rules: readonly Rule[];
  readonly #joined: readonly Rule[];
  readonly #found = new Map<string, Rule>();

  constructor(config: RealtimeConfig) {
    const faults = configFaults(config);
    if (faults.length > 0) throw new Error(`realtime.config.ts: ${faults.join('; ')}`);
    // A channel that matches no rule keeps its history like any other: a forgotten rule must not lose data in silence.
    this.#rules = [...config.rules, { channels: '*' }].map(compileRule);
    this.#joined = this.#rules.filter(({ isJoined }) => isJoined);
    this.all = this.#rules.map(({ log }) => log);
    const { cacheSeconds = cacheSecondsDefault, timeoutMs = timeoutMsDefault } = config.authorize ?? {};
    this.authorize = { cacheSeconds, timeoutMs };
    this.sources = namedSources(config.sources);
  }

  for(channel: string): ChannelRule {
    return this.#find(channel).log;
  }

  access(channel: string): AccessRule {
    return this.#find(channel).access;
  }

  rows(channel: string): RowsRule {
    return this.#find(channel);
  }

  /** The channels to which a connection with these claims is subscribed by itself. */
  joined(claims: Readonly<Record<string, unknown>>): readonly string[] {
    if (this.#joined.length === 0) return nothing;
    const names = this.#joined.flatMap((rule) => {
      const name = rule.pattern.fill(claims);
      // An earlier rule may decide about this name.
      return name !== undefined && this.#find(name) === rule ? [name] : [];
    });
    return [...new Set(names)];
  }

  /**
   * Patterns whose channels' logs this configuration would keep in another way than the earlier one. The process keeps
   * logs as the rules said at its start. In doubt a pattern is named.
   */
  logChanges(earlier: Rules): string[] {
    const differing = this.#rules.filter((rule) => {
      return earlier.#rules.some((other) => {
        const meet = rule.pattern.mayMeet(other.pattern) && !isSameLog(rule.log, other.log);
        return meet && !this.#isDecidedBefore(rule, other) && !earlier.#isDecidedBefore(other, rule);
      });
    });
    return differing.map(({ pattern }) => pattern.text);
  }

  /** Names of sources that this configuration adds, changes or leaves out. The process reads those of its start. */
  sourceChanges(earlier: Rules): string[] {
    const names = new Set([...earlier.sources, ...this.sources].map(({ name }) => name));
    return [...names].filter((name) => textOf(this.sources, name) !== textOf(earlier.sources, name));
  }

  /** Whether the names that both match are another rule's here, one that comes before. */
  #isDecidedBefore(rule: Rule, other: Rule): boolean {
    const before = this.#rules.slice(0, this.#rules.indexOf(rule));
    return before.some(({ pattern }) => pattern.covers(other.pattern) || pattern.covers(rule.pattern));
  }

  #find(channel: string): Rule {
    const known = this.#found.get(channel);
    if (known !== undefined) return known;
    const rule = this.#rules.find(({ pattern }) => pattern.matches(channel));
    if (rule === undefined) throw new Error(`no rule matches channel ${channel}`);
    // Emptied as a whole: knowing the oldest entry would cost more than finding some rules again.
    if (this.#found.size >= rememberedMax) this.#found.clear();
    this.#found.set(channel, rule);
    return rule;
  }
}

function isSameLog(a: ChannelRule, b: ChannelRule): boolean {
  return a.recoverable === b.recoverable && a.historySize === b.historySize && a.historySeconds === b.historySeconds;
}

/** Undefined where there is no source of that name. Functions are compared by their text. */
function textOf(sources: readonly NamedSource[], name: string): string | undefined {
  const source = sources.find((each) => each.name === name);
  return JSON.stringify(source, (_key, value: unknown) => (typeof value === 'function' ? String(value) : value));
}
