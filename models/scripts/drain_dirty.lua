-- Begin a snapshot of a bucket: set aside the users whose totals changed, and make the caller the one who drains.
-- KEYS 1 ready   2 dirty   3 draining   4 drainer
-- ARGV 1 the caller's nonce   2 the number of the bucket's last snapshot   3 seconds that the nonce is kept
-- Returns the number of users to drain; -1 when the counters are not whole, which a restore must mend first
local ready = redis.call('GET', KEYS[1])
if not ready or tonumber(ready) < tonumber(ARGV[2]) then return -1 end
-- A drain that somebody left unfinished is finished first; what is dirty now waits for the next snapshot.
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[3])
end
redis.call('SET', KEYS[4], ARGV[1], 'EX', ARGV[3])
return redis.call('SCARD', KEYS[3])
