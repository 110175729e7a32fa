-- Restore a chunk of stored totals, once: the cursor moves in the same step.
-- KEYS 1 cursor   2 totals, of all time or of a window   3 ready
-- ARGV 1 the cursor as the caller left it   2 the cursor after this chunk   3 when the set ends, ms since 1970, or 0
--      4… pairs: minus calls, member
-- Returns 1 restored, 0 the cursor is not where the caller left it: somebody else restores, or Redis was emptied again
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 then
  -- An older copy of the counters: what it lacks of the stored totals is not known, so they are the least.
  redis.call('ZADD', KEYS[2], 'LT', unpack(ARGV, 4))
else
  for i = 4, #ARGV, 2 do redis.call('ZINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
if ARGV[3] ~= '0' then redis.call('PEXPIREAT', KEYS[2], ARGV[3]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
