-- End a snapshot of a bucket: forget the drained users, unless somebody else drains by now.
-- KEYS 1 draining   2 drainer   3 ready
-- ARGV 1 the caller's nonce   2 the snapshot's number
-- Returns 1 forgotten, 0 it was no longer the caller's
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('SET', KEYS[3], ARGV[2])
return 1
