-- Reserve one login attempt in each of its scopes, before the password is looked at; none is reserved when one refuses.
-- KEYS a scope each: times of its attempts, µs since 1970, oldest first, 8 bytes each
-- ARGV for each key: the number of its limits, then for each limit: quota (attempts), window (microseconds)
-- Returns {1, time_us} reserved at that time; {0, wait_us} refused: the time until every scope allows one
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local scopes = {}
for i = 1, #KEYS do
  local times = redis.call('GET', KEYS[i]) or ''
  scopes[i] = times
  -- Later than every attempt before it, so that its time names it in all scopes, also after the clock was set back.
  if #times > 0 then now_us = math.max(now_us, struct.unpack('>I8', times, #times - 7) + 1) end
end

local wait_us, longest_us, argument = 0, {}, 1
for i = 1, #KEYS do
  local count = #scopes[i] / 8
  longest_us[i] = 0
  for _ = 1, tonumber(ARGV[argument]) do
    local quota, window_us = tonumber(ARGV[argument + 1]), tonumber(ARGV[argument + 2])
    argument = argument + 2
    longest_us[i] = math.max(longest_us[i], window_us)
    if count >= quota then
      -- A window is full while the attempt that is `quota` back is still inside of it.
      local at_us = struct.unpack('>I8', scopes[i], (count - quota) * 8 + 1)
      wait_us = math.max(wait_us, at_us + window_us - now_us)
    end
  end
  argument = argument + 1
end
if wait_us > 0 then return {0, wait_us} end

for i = 1, #KEYS do
  local first = 1
  while first <= #scopes[i] and struct.unpack('>I8', scopes[i], first) <= now_us - longest_us[i] do first = first + 8 end
  local kept = string.sub(scopes[i], first) .. struct.pack('>I8', now_us)
  redis.call('SET', KEYS[i], kept, 'PX', longest_us[i] / 1000)
end
return {1, now_us}
