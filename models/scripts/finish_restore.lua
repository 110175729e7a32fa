-- End the restore of a bucket: merge the stored HyperLogLog and declare the counters whole.
-- KEYS 1 cursor   2 callers   3 stored_sketch   4 ready
-- ARGV 1 the cursor as the caller left it   2 the stored HyperLogLog, or an empty string
--      3 the number of the snapshot that was restored
-- Returns 1 done, 0 as in restore_totals.lua
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[3], ARGV[2])
  redis.call('PFMERGE', KEYS[2], KEYS[3])
  redis.call('DEL', KEYS[3])
end
redis.call('SET', KEYS[4], ARGV[3])
redis.call('DEL', KEYS[1])
return 1
