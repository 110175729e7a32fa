-- Count users of one bucket as the gate would have, many at once: calls between 1 and 1,000, scattered over the users.
-- KEYS 1 totals   2 callers   3 dirty
-- ARGV 1 1 when they are dirty as well, else 0   2… user ids
local totals, ids = {}, {}
for i = 2, #ARGV do
  local user_id = tonumber(ARGV[i])
  totals[#totals + 1] = -(user_id * 7919 % 1000 + 1)
  totals[#totals + 1] = string.format('%012.0f', user_id)
  ids[#ids + 1] = ARGV[i]
end
redis.call('ZADD', KEYS[1], unpack(totals))
redis.call('PFADD', KEYS[2], unpack(ids))
if ARGV[1] == '1' then redis.call('SADD', KEYS[3], unpack(ids)) end
return #ids
