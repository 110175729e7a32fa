-- Set all counters of a bucket to zero.
-- KEYS 1 ready   2… everything that the bucket's counters consist of, and what a snapshot or a restore of them keeps
-- ARGV 1 the number of the reset
-- Returns 1
-- A snapshot that is being finished finds no drainer, and leaves `ready` as it is.
redis.call('UNLINK', unpack(KEYS))
redis.call('SET', KEYS[1], ARGV[1])
return 1
