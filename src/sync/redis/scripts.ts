// The Lua scripts of the Redis adapter, and the form in which publications travel and are stored. Each script touches
// the keys of one channel alone, which share a hash tag, so that they work in a cluster too.
//
//   m:{channel}   hash: e = epoch, o = offset of the head, r = the server's history that they were counted in,
//                 g = the generation of the database that the newest of them was carried from; and
//                 for each source that is carried here, t = how far, b = its last batch, p = rows of earlier terms,
//                 and a field i for each of these, by which it is found
//   s:{channel}   stream: one entry per publication, whose id is its offset: d = data, m = sender, a = unix ms
//   k:{channel}:… the position that an idempotency key was used at
//
// A log may lose its tail: a server restarted from a file that was not written to the end, a replica promoted before it
// had everything. Counting on would give out offsets a second time, and nobody who has seen the first ones could know.
// Redis names each history of its data (`master_replid`): it has another name after each restart and promotion, and never
// stores it. So the first touch of a channel in another history begins another epoch, and whoever holds a position gets a
// gap. Only a server that always writes its file before it answers (`appendfsync always`, and `no-appendfsync-on-rewrite no`)
// and was not promoted keeps its epochs.
// Where the database that changes come from was set back, subscribers were sent what is true no longer. So a later
// generation of the database begins another epoch too.
//
// What is left of the log stays readable, and the count goes on. Keys stay used: what was appended under a key that
// survived has survived as well. An epoch is therefore the log's name, by which keys go. After the first change, `-` and
// the history's name follow.
//
// To ask Redis for its history (INFO) takes half as long as the rest of a script, so the caller may pass the history
// that it knows. It asked for it on the connection that it uses, and whatever brings another history ends that
// connection. The script asks only if the log was not counted in the history that was passed.

import { TermEnded, type Carried } from '../../core/sync-adapter.ts';

/** The log of a head and a stream; answers its epoch and offset. */
const openFunction = `
local function open(headKey, streamKey)
local head = redis.pcall('HMGET', headKey, 'e', 'r', 'o', 'g')
-- Something else stands there, which is no log: the channel must not be refused for ever.
if head.err then
  redis.call('DEL', headKey)
  head = {}
end
local epoch, offset = head[1], head[3]
local is_later = generation > tonumber(head[4] or '0')
if not epoch or known == '' or head[2] ~= known or is_later then
  local info = redis.pcall('INFO', 'replication')
  local history = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or ''
  local time = redis.call('TIME')
  local name = string.sub(redis.sha1hex(headKey .. history .. time[1] .. '.' .. time[2]), 1, 10)
  if not epoch then
    epoch, offset = name, '0'
    redis.call('HSET', headKey, 'e', epoch, 'o', 0, 'r', history, 'g', string.format('%.0f', generation))
    redis.call('DEL', streamKey)
  elseif head[2] ~= history or is_later then
    local promoted = history ~= '' and string.find(info, 'master_replid2:0*[1-9a-f]')
    local lost = head[2] ~= history and (not durable or promoted)
    if lost or (is_later and head[4]) then epoch = string.match(epoch, '^%w+') .. '-' .. name end
    redis.call('HSET', headKey, 'e', epoch, 'r', history)
    if is_later then redis.call('HSET', headKey, 'g', string.format('%.0f', generation)) end
  end
end
return epoch, offset
end
`;

const openLog = `
${openFunction}
local epoch, offset = open(KEYS[1], KEYS[2])
`;

/**
 * What the caller knows of the server: `+` if it writes its file before it answers, then its history; and after an `@` the
 * generation of the database whose changes are carried here.
 */
const readFacts = (argument: number): string => `
local durable, known = string.byte(ARGV[${argument}]) == 43, ARGV[${argument}]
local generation = tonumber(string.match(known, '@(%d+)$') or '0')
known = string.match(known, '^%+?(%w*)')
`;

/** Positions of idle channels are kept this long; a channel idle for longer begins a new epoch. */
const headKeptMs = 30 * 24 * 3_600_000;

/**
 * One atomic step: key check, epoch, offset, append, trim, publish. Answers {epoch, offset}, and 1 behind them if the key
 * was used before.
 *
 * KEYS  head, stream, and that of the idempotency key; without one, the head again
 * ARGV  data, sender, size of the history, milliseconds that it is kept, PUBLISH or SPUBLISH, topic, what is carried or
 *       nothing, facts
 *
 * Each argument costs the driver as much as the script's simplest command, so there are as few as possible.
 * What a source carries is known by a mark: the term, the batch, and the place in it up to which all was appended. One
 * place follows the other, so nothing is appended before what failed. A later term hands over rows that the last batch of
 * an earlier one may hold: they are known by name, until the source says that no more of them can come. Each name is a field of
 * its own: a list of them, read at each append, made appends ten times as dear after five terms with a backlog.
 *
 * The head outlives the stream, so that a quiet channel keeps counting. Without a head what is left of the stream
 * belongs to an earlier log, and goes. The first write is one that a full Redis refuses, so nothing is done by half.
 */
export const appendScript = `
${readFacts(8)}
${openLog}
local marks
if ARGV[7] ~= '' then
  local source, term, batch, place, clean, id, ids =
    string.match(ARGV[7], '^(%S+) (%d+) (%d+) (%d+) ([01]) (%S+)\\n?(.*)$')
  local fields = {'t:' .. source, 'b:' .. source, 'p:' .. source}
  local repeated = 'i:' .. source .. ' '
  local told, earlier
  if clean == '1' then told, earlier = unpack(redis.call('HMGET', KEYS[1], fields[1], fields[3]))
  else told = redis.call('HGET', KEYS[1], fields[1]) end
  local toldTerm, toldBatch, toldPlace = string.match(told or '0 0 0', '(%d+) (%d+) (%d+)')
  term, batch, place = tonumber(term), tonumber(batch), tonumber(place)
  toldTerm, toldBatch, toldPlace = tonumber(toldTerm), tonumber(toldBatch), tonumber(toldPlace)
  if term < toldTerm then return redis.error_reply('TERMENDED ' .. toldTerm) end
  local isNext = term > toldTerm or batch > toldBatch
  if not isNext and (batch < toldBatch or place <= toldPlace) then return {epoch, offset} end
  local due = 1
  if not isNext then due = toldPlace + 1 end
  if place ~= due then return redis.error_reply('NOTNEXT a publication before this one is missing') end
  if clean == '1' then
    if earlier then
      for each in string.gmatch(earlier, '%S+') do redis.call('HDEL', KEYS[1], repeated .. each) end
      redis.call('HDEL', KEYS[1], fields[3])
    end
  elseif term > toldTerm and toldPlace > 0 then
    local all, count = {redis.call('HGET', KEYS[1], fields[3]) or nil}, 0
    for each in string.gmatch(redis.call('HGET', KEYS[1], fields[2]) or '', '%S+') do
      count = count + 1
      if count > toldPlace then break end
      if redis.call('HSET', KEYS[1], repeated .. each, '') == 1 then all[#all + 1] = each end
    end
    redis.call('HSET', KEYS[1], fields[3], table.concat(all, ' '))
  end
  marks = {fields[1], term .. ' ' .. batch .. ' ' .. place}
  if isNext then marks[3], marks[4] = fields[2], ids end
  if clean ~= '1' and redis.call('HGET', KEYS[1], repeated .. id) then
    redis.call('HSET', KEYS[1], unpack(marks))
    return {epoch, offset}
  end
end
local keyed = KEYS[3] ~= KEYS[1]
if keyed then
  local seen = redis.call('GET', KEYS[3])
  if seen then
    local at = string.find(seen, ' ', 1, true)
    local kept = tonumber(string.sub(seen, at + 1)) > offset - ARGV[3]
    if kept and string.sub(seen, 1, at - 1) == string.match(epoch, '^%w+') then
      return {epoch, string.sub(seen, at + 1), 1}
    end
  end
end
offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
local time = redis.call('TIME')
local at = string.format('%d%03d', time[1], math.floor(time[2] / 1000))
local function add()
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], offset .. '-0', 'd', ARGV[1], 'm', ARGV[2], 'a', at)
end
local added = add()
if type(added) == 'table' and added.err then
  -- No stream, or one that is ahead of its head: the log is not what was counted, and another one begins.
  redis.call('DEL', KEYS[2])
  epoch = string.sub(redis.sha1hex(KEYS[1] .. epoch .. at), 1, 10)
  redis.call('HSET', KEYS[1], 'e', epoch)
  added = add()
  if type(added) == 'table' and added.err then return added end
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PEXPIRE', KEYS[1], math.max(${headKeptMs}, ARGV[4]))
if marks then redis.call('HSET', KEYS[1], unpack(marks)) end
if keyed then redis.call('SET', KEYS[3], string.match(epoch, '^%w+') .. ' ' .. offset, 'PX', ARGV[4]) end
redis.call(ARGV[5], ARGV[6], epoch .. ' ' .. offset .. ' ' .. at .. '\\n' .. ARGV[2] .. '\\n' .. ARGV[1])
return {epoch, offset}
`;

/**
 * A channel that was subscribed to and never published to. Each read extends the time. Each node reads the heads of its
 * channels far more often (`heads.ts`), so a head lives as long as somebody is subscribed. Without a subscriber it goes:
 * whoever makes up names must not fill the server.
 */
export const emptyHeadKeptMs = 15 * 60_000;

/**
 * The head, and a stretch of the stream: after an offset, or the newest; within the rule, and within a number of bytes
 * but for the first entry. Answers {epoch, offset, entries, cut}: `cut` is 1 when bytes ended it. A channel without a
 * head gets one, since subscribers need an epoch that still holds at the first publication.
 *
 * Entries are one text, two lines each: id, time and sender, then data, none of which has a line break. As an array of
 * arrays they cost Redis and the driver several times as much, and whoever publishes waits behind a crowd's replies.
 *
 * The stream is read in pieces: one call for a thousand entries of the largest size would build 64 MB, and all who
 * publish would wait for it. Entries are in the order of time, so where the rule's age begins is found by halving.
 *
 * KEYS  head, stream
 * ARGV  the offset or nothing, how many, bytes, the rule's size and milliseconds or 0 for all that is stored, facts
 */
export const readScript = `
${readFacts(6)}
${openLog}
if offset == '0' then redis.call('PEXPIRE', KEYS[1], ${emptyHeadKeptMs}) end
local want, bytesMax = tonumber(ARGV[2]), tonumber(ARGV[3])
local lines, last, found, bytes, cut = {}, nil, 0, 0, 0
if want > 0 then
  local oldest = 0
  if ARGV[5] ~= '0' then
    local time = redis.call('TIME')
    oldest = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[5]
  end
  local function id(number) return string.format('%.0f-0', number) end
  local newest = ARGV[1] == ''
  local from = 1
  if not newest then from = ARGV[1] + 1 end
  if ARGV[4] ~= '0' then from = math.max(from, offset - ARGV[4] + 1) end
  local function isYoung(number)
    local found = redis.call('XRANGE', KEYS[2], id(number), '+', 'COUNT', 1)[1]
    return not found or tonumber(found[2][6]) > oldest
  end
  if not newest and oldest > 0 and not isYoung(from) then
    local low, high = from + 1, tonumber(offset) + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      if isYoung(middle) then high = middle else low = middle + 1 end
    end
    from = low
  end
  local start, count = newest and '+' or id(from), 8
  while found < want do
    count = math.min(count, want - found)
    local piece
    if newest then piece = redis.call('XREVRANGE', KEYS[2], start, id(from), 'COUNT', count)
    else piece = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', count) end
    local ended = #piece < count
    for _, entry in ipairs(piece) do
      local fields = entry[2]
      if newest and tonumber(fields[6]) <= oldest then ended = true break end
      bytes = bytes + #fields[2]
      if found > 0 and bytes > bytesMax then ended, cut = true, 1 break end
      found, last = found + 1, entry[1]
      lines[2 * found - 1] = last .. ' ' .. fields[6] .. ' ' .. fields[4]
      lines[2 * found] = fields[2]
    end
    if ended then break end
    start = '(' .. last
    count = math.max(1, math.min(256, math.floor((bytesMax - bytes) * found / math.max(bytes, 1))))
  end
end
return {epoch, offset, table.concat(lines, '\\n'), cut}
`;

/**
 * The heads of many channels, as the script above opens them. Answers {epoch, offset} of each.
 *
 * KEYS  head and stream of each
 * ARGV  facts
 */
export const headsScript = `
${readFacts(1)}
${openFunction}
local heads = {}
for at = 1, #KEYS, 2 do
  local epoch, offset = open(KEYS[at], KEYS[at + 1])
  if offset == '0' then redis.call('PEXPIRE', KEYS[at], ${emptyHeadKeptMs}) end
  heads[#heads + 1] = {epoch, offset}
end
return heads
`;

/** What is carried, for the script; empty for a publication that is not. */
export function encodeCarried(carried: Carried | undefined): string {
  if (carried === undefined) return '';
  const { source, term, batch, place, clean, id, ids } = carried;
  return `${source} ${term} ${batch} ${place} ${clean ? 1 : 0} ${id}${place === 1 ? `\n${ids.join(' ')}` : ''}`;
}

/** What the script rejects with when the source has another carrier by now; undefined for any other error. */
export function termEnded(error: unknown): TermEnded | undefined {
  const term = error instanceof Error ? /^TERMENDED (\d+)/.exec(error.message)?.[1] : undefined;
  return term === undefined ? undefined : new TermEnded(Number(term), { cause: error });
}

export interface SenderFields {
  readonly from?: { readonly user: string | null; readonly connection: string } | undefined;
  readonly except?: string | undefined;
  readonly xid?: string | undefined;
}

/** Empty where a backend published: neither a client nor a transaction stands behind it. */
export function encodeSender({ from, except, xid }: SenderFields): string {
  if (from !== undefined || except !== undefined) return JSON.stringify({ from, except, xid });
  return xid === undefined ? '' : `{"xid":"${xid}"}`;
}

/** Throws when the text is not what a node of this version writes. */
export function decodeSender(text: string): SenderFields {
  if (text === '') return {};
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== 'object' || parsed === null) throw new Error('a sender is an object');
  return parsed;
}
