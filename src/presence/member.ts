// A member as text. Stores keep it so and frames are spliced from it: between the two nobody reads it.

/**
 * A member that is connected to this node. Other data make another object of it. There are many, so this node's wish, its
 * list and a store in its memory share the one object.
 */
export interface OwnMember {
  /** The very text that its connection holds. */
  readonly connection: string;
  readonly user: string | null;
  /** JSON text on one line. */
  readonly data: string;
  /** 0 until the store has told. */
  since: number;
  // What a store in this process notes. With these two a member is as large as a subscription. Objects of one size stand
  // together, and there is much garbage of the next smaller size: with few members in between, the room of it would stay.
  /** Who entered it. */
  node: string;
  parts: boolean;
}

export function createMember(connection: string, user: string | null, data: string): OwnMember {
  return { connection, user, data, since: 0, node: '', parts: false };
}

const openingBrace = 123;
const userKey = '{"user":';
const connectionKey = ',"connection":"';
const dataKey = '","data":';
const sinceKey = ',"since":';

/** `data` is JSON text on one line; `since` in Unix milliseconds. */
export function memberJson(user: string | null, connection: string, data: string, since: number): string {
  const text = `${userKey}${nameOf(user)}${connectionKey}${connection}${dataKey}${data}${sinceKey}${since}}`;
  // Reading it makes it one text. Until then it is a tree of its pieces, which takes twice as much, and it is kept for long.
  if (text.charCodeAt(0) !== openingBrace) throw new Error('a member is a JSON object');
  return text;
}

export function textOf({ user, connection, data }: OwnMember, since: number): string {
  return memberJson(user, connection, data, since);
}

/** Whether the text is the member's, since whenever. To find out, none is made: each list asks it of each change. */
export function isTextOf({ user, connection, data }: OwnMember, text: string): boolean {
  const name = nameOf(user);
  const connectionAt = userKey.length + name.length + connectionKey.length;
  const dataAt = connectionAt + connection.length + dataKey.length;
  const sinceAt = dataAt + data.length;
  return (
    text.lastIndexOf(sinceKey) === sinceAt &&
    text.startsWith(data, dataAt) &&
    text.startsWith(dataKey, dataAt - dataKey.length) &&
    text.startsWith(connection, connectionAt) &&
    text.startsWith(connectionKey, connectionAt - connectionKey.length) &&
    text.startsWith(name, userKey.length) &&
    text.startsWith(userKey)
  );
}

/** Read from the end, where nothing that a client wrote can stand. */
export function sinceOf(member: string): number {
  return Number.parseInt(member.slice(member.lastIndexOf(':') + 1), 10);
}

function nameOf(user: string | null): string {
  return user === null ? 'null' : JSON.stringify(user);
}
