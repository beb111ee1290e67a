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
}

const openingBrace = 123;

/** `data` is JSON text on one line; `since` in Unix milliseconds. */
export function memberJson(user: string | null, connection: string, data: string, since: number): string {
  const name = user === null ? 'null' : JSON.stringify(user);
  const text = `{"user":${name},"connection":"${connection}","data":${data},"since":${since}}`;
  // Reading it makes it one text. Until then it is a tree of its pieces, which takes twice as much, and it is kept for long.
  if (text.charCodeAt(0) !== openingBrace) throw new Error('a member is a JSON object');
  return text;
}

export function textOf({ user, connection, data }: OwnMember, since: number): string {
  return memberJson(user, connection, data, since);
}

/** Read from the end, where nothing that a client wrote can stand. */
export function sinceOf(member: string): number {
  return Number.parseInt(member.slice(member.lastIndexOf(':') + 1), 10);
}
