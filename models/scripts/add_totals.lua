-- Add a chunk of stored totals to a bucket's, once: the cursor moves in the same step.
-- KEYS 1 cursor   2 totals
-- ARGV 1 the cursor as the caller left it   2 the cursor after this chunk   3… pairs: minus calls, member
-- Returns 1 added, 0 the cursor is not where the caller left it, so somebody else restores or Redis was emptied again
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do redis.call('ZINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
