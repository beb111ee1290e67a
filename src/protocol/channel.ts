// Channel names: what a valid one looks like, which part of it is its namespace, and how a value becomes a part of one.
// Who may use a channel is not decided here.

declare const channelBrand: unique symbol;

/** A checked channel name: 1 to 256 characters of `A-Z a-z 0-9 _ . : - @ /` and `%XX`, after an optional leading `$`. */
export type ChannelName = string & { readonly [channelBrand]: true };

export const channelLengthMax = 256;

// JSON and event streams need to escape none of these characters, so frames can be built by inserting names as they
// are.
const channelPattern = /^\$?(?:[A-Za-z0-9_.:\-@/]|%[0-9A-Fa-f]{2})+$/;

export function isChannelName(value: unknown): value is ChannelName {
  return (
    typeof value === 'string' && value.length > 0 && value.length <= channelLengthMax && channelPattern.test(value)
  );
}

/** Names that begin with `$` are the server's own: clients never publish to them. */
export function isServerChannel(channel: string): boolean {
  return channel.charCodeAt(0) === 36;
}

/**
 * The part before the first `:`, which metrics use as their label: a full name would give one time series per channel.
 */
export function namespaceOf(channel: string): string {
  const colon = channel.indexOf(':');
  return colon === -1 ? channel : channel.slice(0, colon);
}

/**
 * A value, such as a user's id, as one part of a channel's name: each byte of its UTF-8 becomes `%XX` but for
 * `A-Z a-z 0-9 _ . - @ /`. A `:` becomes `%3A`, so that no value reaches into another part.
 */
export function channelPart(value: string): string {
  return encodeURIComponent(value.toWellFormed()).replace(
    /%40|%2F|[!'()*~]/g,
    (text) => leftAsIs.get(text) ?? `%${text.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** What the language's own function encodes, and a channel's name may hold. */
const leftAsIs: ReadonlyMap<string, string> = new Map([
  ['%40', '@'],
  ['%2F', '/'],
]);

/** The value that became this part of a name; undefined for several parts, and for what is not UTF-8. */
export function partValue(part: string): string | undefined {
  if (part.includes(':')) return undefined;
  if (!part.includes('%')) return part;
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
