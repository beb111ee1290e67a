// Channel rules: which channels are recoverable and how much of their history is kept. First match wins.
// Patterns become regular expressions that JavaScript and PostgreSQL read alike, since both sides apply them.

/** A rule as `realtime.config.ts` writes it. */
export interface RuleConfig {
  /** A channel name in which `*` stands for any characters, also none: `ephemeral:*`, `chat:*:typing`, `*`. */
  readonly channels: string;
  /** Recoverable channels number and keep their publications; others do neither. Default: true. */
  readonly recoverable?: boolean;
  /** How much is kept, whichever is less. Default: 1,000 publications, 3,600 seconds. */
  readonly history?: { readonly size?: number; readonly seconds?: number };
}

export interface RealtimeConfig {
  readonly rules: readonly RuleConfig[];
}

/** A compiled rule: what the hub and the adapters work with. One object per rule, shared by its channels. */
export interface ChannelRule {
  /** Source of an anchored regular expression, valid in JavaScript and in PostgreSQL. */
  readonly pattern: string;
  readonly recoverable: boolean;
  /** Publications kept per channel; 0 on ephemeral ones. */
  readonly historySize: number;
  /** Age in seconds past which a publication is not kept. */
  readonly historySeconds: number;
}

export const historySizeDefault = 1_000;
export const historySecondsDefault = 3_600;
const historySizeMax = 1_000_000;
const historySecondsMax = 365 * 24 * 3_600;

/** Types the configuration file: `export default defineConfig({ rules: [...] })`. */
export function defineConfig(config: RealtimeConfig): RealtimeConfig {
  return config;
}

/** Every fault of the configuration, one sentence each, naming the rule; empty when there is none. */
export function configFaults(config: RealtimeConfig): string[] {
  const faults: string[] = [];
  if (!Array.isArray(config?.rules) || config.rules.length === 0) return ['rules: at least one rule is needed'];
  config.rules.forEach((rule, index) => {
    const where = `rules[${index}]`;
    if (typeof rule.channels !== 'string' || channelPattern(rule.channels) === undefined) {
      faults.push(`${where}.channels: "${String(rule.channels)}" is not a channel name or pattern`);
    }
    checkRange(faults, `${where}.history.size`, rule.history?.size, historySizeMax);
    checkRange(faults, `${where}.history.seconds`, rule.history?.seconds, historySecondsMax);
  });
  return faults;
}

function checkRange(faults: string[], where: string, value: number | undefined, max: number): void {
  if (value === undefined) return;
  if (!Number.isInteger(value) || value < 1 || value > max) {
    faults.push(`${where}: ${String(value)} is not a whole number from 1 to ${max}`);
  }
}

/** The anchored expression of a name or pattern; undefined when the text is neither. */
export function channelPattern(channels: string): string | undefined {
  if (!/^\$?[A-Za-z0-9_.:\-@/*]{1,128}$/.test(channels)) return undefined;
  return `^${channels.replace(/[.$]/g, '\\$&').replace(/\*+/g, '.*')}$`;
}

function compileRule(config: RuleConfig): ChannelRule {
  const pattern = channelPattern(config.channels);
  if (pattern === undefined) throw new Error(`"${config.channels}" is not a channel name or pattern`);
  const recoverable = config.recoverable ?? true;
  return {
    pattern,
    recoverable,
    historySize: recoverable ? (config.history?.size ?? historySizeDefault) : 0,
    historySeconds: recoverable ? (config.history?.seconds ?? historySecondsDefault) : 0,
  };
}

/** The rules in force: finds a channel's rule, and remembers nothing per channel. */
export class Rules {
  /** In order; the last one matches every name, so that each channel has a rule. */
  readonly all: readonly ChannelRule[];
  readonly #matchers: readonly { readonly expression: RegExp; readonly rule: ChannelRule }[];

  constructor(config: RealtimeConfig) {
    const faults = configFaults(config);
    if (faults.length > 0) throw new Error(`realtime.config.ts: ${faults.join('; ')}`);
    const compiled = config.rules.map(compileRule);
    // A channel that no rule names is kept like any other: losing data by an omission would be a silent loss.
    this.all = [...compiled, compileRule({ channels: '*' })];
    this.#matchers = this.all.map((rule) => ({ expression: new RegExp(rule.pattern), rule }));
  }

  for(channel: string): ChannelRule {
    for (const { expression, rule } of this.#matchers) if (expression.test(channel)) return rule;
    throw new Error(`no rule matches channel ${channel}`);
  }
}
