-- Raise a bucket's totals of all time to stored ones; running it twice is harmless.
-- KEYS 1 ready   2 totals   3 callers   4 dirty
-- ARGV pairs: user id, calls
-- Returns how many were raised; -1 when the counters are not whole: a restore has to come first
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local raised = 0
for i = 1, #ARGV, 2 do
  local uid = ARGV[i]
  local changed = redis.call('ZADD', KEYS[2], 'LT', 'CH', '-' .. ARGV[i + 1], string.format('%012.0f', uid))
  -- Whoever has a total is in the HyperLogLog, also after a crash between the two.
  if redis.call('PFADD', KEYS[3], uid) + changed > 0 then
    redis.call('SADD', KEYS[4], uid)
    raised = raised + changed
  end
end
return raised
