// The members of a channel, by connection, in the order in which these came first. Nearly all channels have a few, and
// there may be very many channels. So a list is a value, and takes nothing of its own where it can: one member stands for
// itself, up to sixteen are in an array, and more in a map of the language, which takes half a kilobyte for its first
// entry. Whoever changes a list keeps what it has become, and uses the earlier one no more.

interface OfConnection {
  readonly connection: string;
}

/** Undefined without a member. */
export type MemberList<Member extends OfConnection> = Member | Member[] | Map<string, Member> | undefined;

export const fewMax = 16;

export function sizeOf<Member extends OfConnection>(list: MemberList<Member>): number {
  if (list === undefined) return 0;
  if (list instanceof Map) return list.size;
  return isArray(list) ? list.length : 1;
}

export function membersOf<Member extends OfConnection>(list: MemberList<Member>): Iterable<Member> {
  if (list === undefined) return [];
  if (list instanceof Map) return list.values();
  return isArray(list) ? list : [list];
}

export function memberOf<Member extends OfConnection>(
  list: MemberList<Member>,
  connection: string,
): Member | undefined {
  if (list === undefined) return undefined;
  if (list instanceof Map) return list.get(connection);
  if (isArray(list)) return list[placeOf(list, connection)];
  return list.connection === connection ? list : undefined;
}

/** The member takes the place of another one of its connection. */
export function withMember<Member extends OfConnection>(
  list: MemberList<Member>,
  member: Member,
): NonNullable<MemberList<Member>> {
  if (list === undefined) return member;
  if (list instanceof Map) return list.set(member.connection, member);
  if (!isArray(list)) return list.connection === member.connection ? member : Array.of(list, member);
  const at = placeOf(list, member.connection);
  if (at !== -1) list[at] = member;
  else if (list.length < fewMax) list.push(member);
  else return new Map([...list, member].map((each) => [each.connection, each]));
  return list;
}

export function withoutMember<Member extends OfConnection>(
  list: MemberList<Member>,
  connection: string,
): MemberList<Member> {
  if (list instanceof Map) {
    list.delete(connection);
    return list.size === 0 ? undefined : list;
  }
  if (list === undefined || !isArray(list)) return list?.connection === connection ? undefined : list;
  const at = placeOf(list, connection);
  if (at !== -1) list.splice(at, 1);
  return list.length > 1 ? list : list[0];
}

/** Asked several times at each join: a function that is passed would be another object each time. */
function placeOf(list: readonly OfConnection[], connection: string): number {
  for (let at = 0; at < list.length; at++) if (list[at]?.connection === connection) return at;
  return -1;
}

/** A member is no array. */
function isArray<Member extends OfConnection>(list: Member | Member[]): list is Member[] {
  return Array.isArray(list);
}
