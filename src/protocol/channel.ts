// Channel names: what a valid one looks like and which part of it is its namespace.
// Who may use a channel is not decided here.

declare const channelBrand: unique symbol;

/** A checked channel name: 1 to 128 characters of `A-Z a-z 0-9 _ . : - @ /`, after an optional leading `$`. */
export type ChannelName = string & { readonly [channelBrand]: true };

export const channelLengthMax = 128;

// JSON and event streams need to escape none of these characters, so frames can be built by inserting names as they
// are.
const channelPattern = /^\$?[A-Za-z0-9_.:\-@/]+$/;

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
