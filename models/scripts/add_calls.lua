-- Add calls that were admitted while Redis was away.
-- KEYS 1 totals   2 callers   3 dirty
-- ARGV triples: user id, member of totals, minus the number of calls
-- Returns the number of users
for i = 1, #ARGV, 3 do
  redis.call('ZINCRBY', KEYS[1], ARGV[i + 2], ARGV[i + 1])
  redis.call('PFADD', KEYS[2], ARGV[i])
  redis.call('SADD', KEYS[3], ARGV[i])
end
return #ARGV / 3
