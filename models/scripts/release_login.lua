-- Take a reserved login attempt back: the password was right, or was not looked at.
-- KEYS as in reserve_login.lua
-- ARGV 1 the time of the reservation, µs since 1970
-- Returns the number of scopes that still had it
local attempt, found = struct.pack('>I8', tonumber(ARGV[1])), 0
for i = 1, #KEYS do
  local times = redis.call('GET', KEYS[i]) or ''
  -- From the newest back: it is hardly ever far from the end.
  for at = #times - 7, 1, -8 do
    if string.sub(times, at, at + 7) == attempt then
      local others = string.sub(times, 1, at - 1) .. string.sub(times, at + 8)
      if others == '' then redis.call('DEL', KEYS[i]) else redis.call('SET', KEYS[i], others, 'KEEPTTL') end
      found = found + 1
      break
    end
  end
end
return found
