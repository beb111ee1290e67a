// Finds everything that is wrong with a configuration, at once. The file is not type-checked when it is read, and a
// misspelled or misunderstood member could leave a door open.

import { ChannelPattern, patternFault } from './pattern.ts';
import { checkMembers, isObject, objectMember, shown, type Members, type Report } from './checks.ts';
import { actions, type Action, type RealtimeConfig, type Who } from './config.ts';
import { checkSources } from './source-faults.ts';

const whos: readonly Who[] = ['everyone', 'users', 'owner', 'token', 'authorize', 'nobody'];
const ruleMembers = [
  'channels',
  'recoverable',
  'history',
  'allow',
  'authorize',
  'snapshot',
  'older',
  'subscribersMax',
  'membersMax',
  'join',
];
const rulesMax = 1_000;
const historySizeMax = 1_000_000;
const historySecondsMax = 365 * 24 * 3_600;
const subscribersMaxMax = 1_000_000;
const membersMaxMax = 1_000_000;

/** One sentence each, naming the rule and the member; empty when there is none. */
export function configFaults(config: RealtimeConfig): string[] {
  const faults: string[] = [];
  const report = (fault: string): void => void faults.push(fault);
  const given: unknown = config;
  if (!isObject(given)) return ['the configuration is not an object: `export default defineConfig({ rules: [...] })`'];
  checkMembers(report, '', given, ['rules', 'authorize', 'sources']);
  const asking = objectMember(report, 'authorize', given['authorize'], ['cacheSeconds', 'timeoutMs']);
  checkRange(report, 'authorize.cacheSeconds', asking?.['cacheSeconds'], 0, 3_600);
  checkRange(report, 'authorize.timeoutMs', asking?.['timeoutMs'], 10, 60_000);
  const { rules } = given;
  if (!Array.isArray(rules) || rules.length === 0) report('rules: at least one rule is needed');
  else if (rules.length > rulesMax) report(`rules: there are more than ${rulesMax}`);
  else checkRules(report, rules);
  checkSources(report, given['sources']);
  return faults;
}

function checkRules(report: Report, rules: readonly unknown[]): void {
  const patterns = rules.map((rule, index) => checkRule(report, `rules[${index}]`, rule));
  patterns.forEach((pattern, index) => {
    if (pattern === undefined) return;
    const earlier = patterns.slice(0, index).findIndex((other) => other?.covers(pattern) === true);
    if (earlier === -1) return;
    report(`rules[${index}].channels: "${pattern.text}" is never reached: rules[${earlier}] matches all of it`);
  });
}

function checkRule(report: Report, where: string, rule: unknown): ChannelPattern | undefined {
  if (!isObject(rule)) {
    report(`${where}: is not an object`);
    return undefined;
  }
  checkMembers(report, `${where}.`, rule, ruleMembers);
  const fault = patternFault(rule['channels']);
  if (fault !== undefined) report(`${where}.channels: ${fault}`);
  const pattern = fault === undefined ? new ChannelPattern(rule['channels'] as string) : undefined;
  const { recoverable, authorize } = rule;
  if (recoverable !== undefined && typeof recoverable !== 'boolean')
    report(`${where}.recoverable: is not true or false`);
  const history = objectMember(report, `${where}.history`, rule['history'], ['size', 'seconds']);
  if (history !== undefined && recoverable === false) report(`${where}.history: ephemeral channels keep none`);
  checkRange(report, `${where}.history.size`, history?.['size'], 1, historySizeMax);
  checkRange(report, `${where}.history.seconds`, history?.['seconds'], 1, historySecondsMax);
  checkRange(report, `${where}.subscribersMax`, rule['subscribersMax'], 1, subscribersMaxMax);
  checkRange(report, `${where}.membersMax`, rule['membersMax'], 1, membersMaxMax);
  const { join } = rule;
  if (join !== undefined && join !== 'always') report(`${where}.join: ${shown(join)} is not 'always'`);
  if (join !== undefined && pattern?.text.includes('*') === true) {
    report(`${where}.join: 'always' needs one channel for each token, and * stands for many`);
  }
  checkRows(report, where, rule['snapshot'], recoverable);
  const { older } = rule;
  if (older !== undefined && typeof older !== 'function') report(`${where}.older: is not a function`);
  if (authorize !== undefined && typeof authorize !== 'function') report(`${where}.authorize: is not a function`);
  const allow = objectMember(report, `${where}.allow`, rule['allow'], actions);
  for (const action of actions) checkWho(report, where, action, allow?.[action], rule, pattern);
  return pattern;
}

function checkRows(report: Report, where: string, snapshot: unknown, recoverable: unknown): void {
  if (snapshot === undefined) return;
  if (typeof snapshot !== 'function') report(`${where}.snapshot: is not a function`);
  if (recoverable === false) report(`${where}.snapshot: ephemeral channels have no position at which rows are true`);
}

function checkWho(
  report: Report,
  rule: string,
  action: Action,
  given: unknown,
  { authorize }: Members,
  pattern: ChannelPattern | undefined,
): void {
  if (given === undefined) return;
  const where = `${rule}.allow.${action}`;
  const list: readonly unknown[] = Array.isArray(given) ? given : [given];
  if (list.length === 0) report(`${where}: names no one; write 'nobody'`);
  for (const who of list) {
    if (!whos.includes(who as Who)) report(`${where}: ${shown(who)} is none of ${whos.join(', ')}`);
  }
  if (list.length > 1 && list.includes('nobody')) report(`${where}: 'nobody' stands alone`);
  if (list.includes('owner') && pattern?.captures.length === 0) {
    report(`${where}: 'owner' needs a capture in channels that is a claim of the token, such as {sub}`);
  }
  if (list.includes('authorize') && authorize === undefined) {
    report(`${where}: 'authorize' needs the function ${rule}.authorize`);
  }
  if (action === 'publish' && pattern?.text.startsWith('$') === true && !list.every((who) => who === 'nobody')) {
    report(`${where}: clients never publish to channels that begin with $`);
  }
}

function checkRange(report: Report, where: string, value: unknown, min: number, max: number): void {
  if (value === undefined) return;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    report(`${where}: ${shown(value)} is not a whole number from ${min} to ${max}`);
  }
}
