-- Add calls that were admitted while Redis was away.
-- KEYS 1 pending
-- ARGV pairs: user id:hour since 1970, number of calls
-- Returns the number of pairs
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
return #ARGV / 2
