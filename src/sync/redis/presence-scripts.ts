// The Lua scripts of the presence store. Each touches the keys of one channel alone, which share a hash tag with its topic.
//
//   ph:{channel}          string: epoch and version. A string, since one command reads those of many channels
//   pm:{channel}          hash: connection → node, user, member, a line each
//   pu:{channel}          hash: user → the user's connections, in the order in which they came; `-` marks one that parts
//   pn:{channel}:<node>   set: the connections that a node entered. It may name some that are gone
//
// What is told of a channel is one message: the epoch, then a line for each change: kind, version, connection, the one
// that left or `-`, and the member. Values hold no line break: users have no control characters, and JSON escapes them.

/** An empty channel keeps its epoch and counts on for this long. */
const emptyKeptMs = 60_000;

const functions = `
local head, members, users, own = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch, version = string.match(redis.call('GET', head) or '', '(%w+) (%d+)')
version = tonumber(version or 0)
local told = {}

local function now()
  local time = redis.call('TIME')
  return string.format('%d%03d', time[1], math.floor(time[2] / 1000))
end

local function tell(kind, connection, left, member)
  if not epoch then
    local time = redis.call('TIME')
    epoch = string.sub(redis.sha1hex(head .. time[1] .. '.' .. time[2]), 1, 10)
  end
  version = version + 1
  local line = kind .. ' ' .. string.format('%.0f', version) .. ' ' .. connection .. ' ' .. left .. ' ' .. member
  told[#told + 1] = line
  return line
end

local function read(connection)
  local stored = redis.call('HGET', members, connection)
  if not stored then return nil end
  local first = string.find(stored, '\\n', 1, true)
  local second = string.find(stored, '\\n', first + 1, true)
  return string.sub(stored, 1, first - 1), string.sub(stored, first + 1, second - 1), string.sub(stored, second + 1)
end

local function places(user)
  local list = {}
  if user == '' then return list end
  for mark, connection in string.gmatch(redis.call('HGET', users, user) or '', '(%-?)(%w+)') do
    list[#list + 1] = {connection = connection, parts = mark == '-'}
  end
  return list
end

local function keep(user, list)
  if user == '' then return end
  local words = {}
  for index, place in ipairs(list) do words[index] = (place.parts and '-' or '') .. place.connection end
  if #words == 0 then redis.call('HDEL', users, user)
  else redis.call('HSET', users, user, table.concat(words, ' ')) end
end

local function without(list, connection)
  local rest = {}
  for _, place in ipairs(list) do
    if place.connection ~= connection then rest[#rest + 1] = place end
  end
  return rest
end

local function remove(connection, user, member)
  redis.call('HDEL', members, connection)
  local rest = without(places(user), connection)
  keep(user, rest)
  for _, place in ipairs(rest) do
    local _, _, other = read(place.connection)
    if other then return tell('update', place.connection, connection, other) end
  end
  return tell('leave', connection, '-', member)
end

local function finish(command, topic)
  if #told == 0 then return end
  local stands = epoch .. ' ' .. string.format('%.0f', version)
  if redis.call('EXISTS', members) == 1 then redis.call('SET', head, stands)
  else redis.call('SET', head, stands, 'PX', ${emptyKeptMs}) end
  redis.call(command, topic, epoch .. '\\n' .. table.concat(told, '\\n'))
end
`;

/** Arguments of one change: kind, connection, user or nothing, the user as JSON, data, how many the channel takes or 0. */
export const changeArguments = 6;

/**
 * Applies changes of one node to one channel. Answers {epoch or nothing, version, and for each change the line that was
 * told, or nothing, or 'full'}.
 *
 * KEYS  ph, pm, pu, pn of the node
 * ARGV  PUBLISH or SPUBLISH, topic, node, then the changes
 */
export const applyScript = `
${functions}
local node = ARGV[3]

local function enter(connection, user, name, data, most)
  local storedNode, _, stored = read(connection)
  local list = places(user)
  local since, left = nil, '-'
  if storedNode then since = string.match(stored, '"since":(%d+)}$') end
  local start = '{"user":' .. name .. ',"connection":"' .. connection .. '","data":' .. data .. ',"since":'
  local value = node .. '\\n' .. user .. '\\n' .. start

  if storedNode then
    local member = start .. since .. '}'
    if storedNode ~= node or member ~= stored then redis.call('HSET', members, connection, value .. since .. '}') end
    redis.call('SADD', own, connection)
    for _, place in ipairs(list) do
      if place.connection == connection and place.parts then
        place.parts = false
        keep(user, list)
      end
    end
    return member == stored and '' or tell('update', connection, '-', member)
  end

  local replaced
  for _, place in ipairs(list) do
    if place.parts and not replaced then replaced = place.connection end
  end
  if most > 0 and not replaced and redis.call('HLEN', members) >= most then return 'full' end
  if replaced then
    local _, _, before = read(replaced)
    since = before and string.match(before, '"since":(%d+)}$')
    left = replaced
  end
  since = since or now()
  redis.call('HSET', members, connection, value .. since .. '}')
  redis.call('SADD', own, connection)
  local isFirst = #list == 0
  if replaced then
    redis.call('HDEL', members, replaced)
    list = without(list, replaced)
  end
  list[#list + 1] = {connection = connection, parts = false}
  keep(user, list)
  return tell(isFirst and 'join' or 'update', connection, left, start .. since .. '}')
end

local answers = {}
for at = 4, #ARGV, ${changeArguments} do
  local kind, connection = ARGV[at], ARGV[at + 1]
  local answer = ''
  if kind == 'enter' then
    answer = enter(connection, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], tonumber(ARGV[at + 5]))
  else
    local storedNode, user, member = read(connection)
    if kind == 'leave' then redis.call('SREM', own, connection) end
    if storedNode and kind == 'leave' then answer = remove(connection, user, member)
    elseif storedNode and user ~= '' then
      local list = places(user)
      for _, place in ipairs(list) do
        if place.connection == connection then place.parts = true end
      end
      keep(user, list)
    end
  end
  answers[#answers + 1] = answer
end
finish(ARGV[1], ARGV[2])
return {epoch or '', string.format('%.0f', version), answers}
`;

/**
 * Removes some members of a dead node from one channel. Answers {how many are left to look at, the lines that were told}.
 *
 * KEYS  ph, pm, pu, pn of the node
 * ARGV  PUBLISH or SPUBLISH, topic, node, how many
 */
export const buryScript = `
${functions}
for _, connection in ipairs(redis.call('SPOP', own, ARGV[4])) do
  local storedNode, user, member = read(connection)
  if storedNode == ARGV[3] then remove(connection, user, member) end
end
finish(ARGV[1], ARGV[2])
return {redis.call('SCARD', own), told}
`;

/**
 * A stretch of the members. Answers {the head or nothing, cursor, [connection, value, …]}.
 *
 * KEYS  ph, pm
 * ARGV  cursor, about how many
 */
export const readScript = `
local page = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
return {redis.call('GET', KEYS[1]), page[1], page[2]}
`;

/**
 * A node's sign of life. Answers {1 if the node was known, milliseconds until the next other node dies or -1, the dead}.
 *
 * KEYS  the set of nodes, by the time at which each dies
 * ARGV  node, milliseconds
 */
export const liveScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 10)
local next = -1
local living = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 2)
for at = 1, #living, 2 do
  if living[at] ~= ARGV[1] and next == -1 then next = living[at + 1] - now end
end
return {known and 1 or 0, next, dead}
`;

/**
 * Nodes that are not known yet die after so long.
 *
 * KEYS  the set of nodes
 * ARGV  milliseconds, nodes
 */
export const suspectScript = `
local time = redis.call('TIME')
local dies = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local added = {}
for at = 2, #ARGV do
  if redis.call('ZADD', KEYS[1], 'NX', dies, ARGV[at]) == 1 then added[#added + 1] = ARGV[at] end
end
return added
`;

/** As `live`, without an answer. */
export const endScript = `
local time = redis.call('TIME')
return redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
`;
