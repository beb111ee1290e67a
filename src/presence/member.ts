// A member as text. Stores keep it so and frames are spliced from it: between the two nobody reads it.

/** `data` is JSON text on one line; `since` in Unix milliseconds. */
export function memberJson(user: string | null, connection: string, data: string, since: number): string {
  const name = user === null ? 'null' : JSON.stringify(user);
  return `{"user":${name},"connection":"${connection}","data":${data},"since":${since}}`;
}

/** Read from the end, where nothing that a client wrote can stand. */
export function sinceOf(member: string): number {
  return Number.parseInt(member.slice(member.lastIndexOf(':') + 1), 10);
}
