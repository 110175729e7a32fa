-- Admit one call: is the session the cached one, do all limits allow it, then count it. One round trip, one slot.
-- KEYS 1 session   2 calls_at   3 totals   4 callers   5 dirty
-- ARGV 1 the cached value that this token must match   2 its session version   3 user id   4 member of totals
--      5… pairs: quota (calls), window (microseconds)
-- Returns {1, remaining, reset_us, …} admitted: a pair for each limit, after this call
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
local now_us = time[1] * 1000000 + time[2]
-- Times of the admitted calls, oldest first, 8 bytes each: read and written as one value, whatever the number of limits.
local times = redis.call('GET', KEYS[2]) or ''
local length = #times / 8
-- A clock that was set back must not make times fall: it stands still until it has caught up.
if length > 0 then now_us = math.max(now_us, (struct.unpack('>I8', times, length * 8 - 7))) end
local reply, allowed, keep_from, longest_us = {1}, true, length + 1, 0

for i = 5, #ARGV, 2 do
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

if not allowed then
  reply[1] = 0
  return reply
end

-- What no window holds any more is dropped, so the value is never longer than the largest quota.
local kept = string.sub(times, keep_from * 8 - 7) .. struct.pack('>I8', now_us)
redis.call('SET', KEYS[2], kept, 'PX', longest_us / 1000)
-- Totals are negative: the set's own order is then most calls first and, among equals, the lower user id.
-- Whoever has a total is in the HyperLogLog already: both are kept, lost and restored together.
if redis.call('ZINCRBY', KEYS[3], -1, ARGV[4]) == '-1' then redis.call('PFADD', KEYS[4], ARGV[3]) end
redis.call('SADD', KEYS[5], ARGV[3])
for i = 2, #reply, 2 do reply[i] = reply[i] - 1 end
return reply
