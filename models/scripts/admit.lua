-- Admit one call: is the session the cached one, do all limits allow it, then count it. One round trip, one slot.
-- KEYS 1 session   2 pending   3… of each policy calls_at, the enforced policies first
-- ARGV 1 the cached value that this token must match   2 its session version   3 user id
--      4… of each policy: 1 if it is a shadow, else 0; the number of its limits; pairs: quota (calls), window (µs)
-- Returns {1, remaining, reset_us, …} admitted: a pair for each limit, after this call; of a shadow that would have
--                                     refused it, one remaining at least is negative
--         {0, remaining, reset_us, …} over a limit: nothing was changed
--         {2}                         no entry, or an older one: ask PostgreSQL
--         {3, cached}                 the session was replaced or revoked: what is cached instead
-- reset_us: until the oldest call leaves that limit's window. A call as old as the window is outside of it.
local cached = redis.call('GET', KEYS[1])
if cached ~= ARGV[1] then
  if not cached or tonumber(string.match(cached, '^%d+')) < tonumber(ARGV[2]) then return {2} end
  return {3, cached}
end

local time = redis.call('TIME')
local server_us = time[1] * 1000000 + time[2]
local reply, argument, refused, kept, keep_ms = {1}, 4, false, {}, {}

for policy = 3, #KEYS do
  -- Times of the admitted calls, oldest first, 8 bytes each: one value, whatever the number of limits.
  local times, now_us = redis.call('GET', KEYS[policy]) or '', server_us
  local length = #times / 8
  -- A clock that was set back must not make times fall: it stands still until it has caught up.
  if length > 0 then now_us = math.max(now_us, (struct.unpack('>I8', times, length * 8 - 7))) end
  local shadow, last = ARGV[argument] == '1', argument + 2 * ARGV[argument + 1]
  local allowed, keep_from, longest_us = true, length + 1, 0

  for i = argument + 2, last, 2 do
    local quota, window_us = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
    local horizon_us, oldest_us = now_us - window_us, now_us
    -- Only the newest `quota` calls can matter. Times rise, so the first of them inside the window is found by bisection.
    local low, high = math.max(1, length - quota + 1), length + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      local at_us = struct.unpack('>I8', times, middle * 8 - 7)
      if at_us > horizon_us then
        high, oldest_us = middle, at_us
      else
        low = middle + 1
      end
    end
    local remaining = quota - (length + 1 - low)
    if remaining <= 0 then allowed = false end
    keep_from = math.min(keep_from, low)
    longest_us = math.max(longest_us, window_us)
    reply[#reply + 1] = remaining
    reply[#reply + 1] = oldest_us + window_us - now_us
  end

  if allowed then
    -- What no window holds any more is dropped, so the value is never longer than the largest quota.
    kept[policy] = string.sub(times, keep_from * 8 - 7) .. struct.pack('>I8', now_us)
    keep_ms[policy] = longest_us / 1000
  elseif not shadow then
    refused = true
  end
  argument = last + 2
end

if refused then
  reply[1] = 0
  return reply
end

for policy, times in pairs(kept) do redis.call('SET', KEYS[policy], times, 'PX', keep_ms[policy]) end
-- The totals are sorted and several: `fold_calls.lua` brings them up to date, for all calls of a user at once.
redis.call('HINCRBY', KEYS[2], ARGV[3] .. ':' .. math.floor(server_us / 3600000000), 1)
for i = 2, #reply, 2 do reply[i] = reply[i] - 1 end
return reply
