// Finds everything that is wrong with the sources of a configuration, at once. Whether a broker is where it should be is
// seen when the server runs.

import { isChannelName, isServerChannel } from '../protocol/channel.ts';
import { checkMembers, isObject, shown, type Members, type Report } from './checks.ts';
import { nameOf, sourceNameLengthMax, type SourceKind } from './source-config.ts';

const common = ['name', 'channel', 'data', 'url'];

interface Kind {
  readonly members: readonly string[];
  /** At least one of these says what is read. */
  readonly needed: readonly string[];
}

const kinds: Readonly<Record<SourceKind, Kind>> = {
  kafka: { members: ['topic', 'group', 'from'], needed: ['topic'] },
  rabbitmq: { members: ['queue'], needed: ['queue'] },
  nats: { members: ['stream', 'subject', 'from'], needed: ['stream', 'subject'] },
  redisStream: { members: ['key', 'field', 'group', 'from'], needed: ['key'] },
};
const kindNames = Object.keys(kinds) as SourceKind[];
const sourcesMax = 100;

export function checkSources(report: Report, sources: unknown): void {
  if (sources === undefined) return;
  if (!Array.isArray(sources)) report('sources: is not a list');
  else if (sources.length > sourcesMax) report(`sources: there are more than ${sourcesMax}`);
  else {
    const names = sources.map((source: unknown, index) => checkSource(report, `sources[${index}]`, source));
    names.forEach((name, index) => {
      const earlier = names.indexOf(name);
      if (name === undefined || earlier === index) return;
      report(
        `sources[${index}]: its name is "${name}", as that of sources[${earlier}]: give one of them another \`name\``,
      );
    });
  }
}

/** The source's name, where it can be told. */
function checkSource(report: Report, where: string, source: unknown): string | undefined {
  if (!isObject(source)) {
    report(`${where}: is not an object`);
    return undefined;
  }
  const [name = '', ...others] = Object.keys(source);
  const kind = kindNames.find((each) => each === name);
  if (kind === undefined || others.length > 0) {
    const given = name === '' ? 'an empty object' : Object.keys(source).join(', ');
    report(`${where}: ${given} is not one of ${kindNames.join(', ')}`);
    return undefined;
  }
  const options = source[kind];
  if (!isObject(options)) {
    report(`${where}.${kind}: is not an object`);
    return undefined;
  }
  checkOptions(report, `${where}.${kind}`, options, kinds[kind]);
  return nameOf(kind, options);
}

function checkOptions(report: Report, where: string, options: Members, { members, needed }: Kind): void {
  checkMembers(report, `${where}.`, options, [
    ...needed,
    ...members.filter((name) => !needed.includes(name)),
    ...common,
  ]);
  if (needed.every((name) => options[name] === undefined)) {
    report(`${where}: ${needed.map((name) => `\`${name}\``).join(' or ')} is missing: what to read`);
  }
  for (const name of [...members, 'name', 'url']) {
    const value = options[name];
    if (value === undefined || name === 'from') continue;
    // A URL may hold a password.
    const seen = name === 'url' ? 'the value (not shown)' : shown(value);
    if (typeof value !== 'string' || value === '') report(`${where}.${name}: ${seen} is not a text`);
  }
  const { name, channel, data, from } = options;
  if (typeof name === 'string' && name.length > sourceNameLengthMax) {
    report(`${where}.name: it has more than ${sourceNameLengthMax} characters`);
  }
  if (from !== undefined && from !== 'start' && from !== 'end') {
    report(`${where}.from: ${shown(from)} is neither 'start' nor 'end'`);
  }
  if (channel === undefined) report(`${where}: \`channel\` is missing: where messages are published`);
  else if (
    typeof channel === 'string' ? !isChannelName(channel) || isServerChannel(channel) : typeof channel !== 'function'
  ) {
    report(`${where}.channel: ${shown(channel)} is neither a channel nor a function`);
  }
  if (data !== undefined && typeof data !== 'function') report(`${where}.data: is not a function`);
}
