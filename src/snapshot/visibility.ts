// Which transactions a snapshot of the database sees, by its text form `xmin:xmax:xip,…`: those below xmin, and those
// below xmax that were not in progress. Ids are 64 bits wide and never used twice.

export type Sees = (xid: string) => boolean;

/** Throws on a text of another form. */
export function visibilityOf(snapshot: string): Sees {
  const [xmin, xmax, running] = snapshot.split(':');
  if (xmin === undefined || xmax === undefined || running === undefined) throw new Error('this is no snapshot');
  const [from, to] = [BigInt(xmin), BigInt(xmax)];
  const open = new Set(running.split(','));
  return (xid) => {
    const id = BigInt(xid);
    return id < from || (id < to && !open.has(xid));
  };
}
