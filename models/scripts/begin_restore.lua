-- Begin, or take over, the restore of a bucket that lost its counters, or holds older ones than were stored.
-- KEYS 1 ready   2 cursor
-- ARGV 1 the caller's nonce   2 the number of the bucket's last snapshot
-- Returns the user id up to which totals were restored already; -1 when the counters are whole
local ready = redis.call('GET', KEYS[1])
if ready and tonumber(ready) >= tonumber(ARGV[2]) then return -1 end
local cursor = redis.call('GET', KEYS[2])
local position = cursor and string.match(cursor, ':(%d+)$') or '0'
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. position)
return tonumber(position)
