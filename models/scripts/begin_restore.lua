-- Begin, or take over, the restore of a bucket that lost its counters.
-- KEYS 1 ready   2 cursor
-- ARGV 1 the caller's nonce
-- Returns the user id up to which totals were added already; -1 when the counters are whole
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
local cursor = redis.call('GET', KEYS[2])
local position = cursor and string.match(cursor, ':(%d+)$') or '0'
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. position)
return tonumber(position)
