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
local length = redis.call('LLEN', KEYS[2])
local reply, allowed, keep, longest_us = {1}, true, 0, 0

for i = 5, #ARGV, 2 do
  local quota, window_us = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local horizon_us = now_us - window_us
  local used, oldest_us = math.min(length, quota), now_us
  if used > 0 then
    oldest_us = tonumber(redis.call('LINDEX', KEYS[2], used - 1))
    if oldest_us <= horizon_us then
      -- Times fall along the list, so the number inside the window is found by bisection.
      local low, high = 0, used - 1
      oldest_us = now_us
      while low < high do
        local middle = math.floor((low + high) / 2)
        local at_us = tonumber(redis.call('LINDEX', KEYS[2], middle))
        if at_us > horizon_us then
          low, oldest_us = middle + 1, at_us
        else
          high = middle
        end
      end
      used = low
    end
  end
  if used >= quota then allowed = false end
  keep = math.max(keep, used)
  longest_us = math.max(longest_us, window_us)
  reply[#reply + 1] = quota - used
  reply[#reply + 1] = oldest_us + window_us - now_us
end

if not allowed then
  reply[1] = 0
  return reply
end

-- What no window holds any more is dropped, so the list is never longer than the largest quota.
if keep < length then
  if keep == 0 then redis.call('DEL', KEYS[2]) else redis.call('LTRIM', KEYS[2], 0, keep - 1) end
end
redis.call('LPUSH', KEYS[2], string.format('%.0f', now_us))
redis.call('PEXPIRE', KEYS[2], longest_us / 1000)
-- Totals are negative: the set's own order is then most calls first and, among equals, the lower user id.
-- Whoever has a total is in the HyperLogLog already: both are kept, lost and restored together.
if redis.call('ZINCRBY', KEYS[3], -1, ARGV[4]) == '-1' then redis.call('PFADD', KEYS[4], ARGV[3]) end
redis.call('SADD', KEYS[5], ARGV[3])
for i = 2, #reply, 2 do reply[i] = reply[i] - 1 end
return reply
