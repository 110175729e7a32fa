-- Begin, or take over, the restore of a bucket that lost its counters, or holds older ones than were stored.
-- KEYS 1 ready   2 cursor
-- ARGV 1 the caller's nonce   2 the number of the bucket's last snapshot
-- Returns how far totals were restored already, as set:user id; an empty string when the counters are whole
local ready = redis.call('GET', KEYS[1])
if ready and tonumber(ready) >= tonumber(ARGV[2]) then return '' end
local cursor = redis.call('GET', KEYS[2])
local position = cursor and string.match(cursor, ':(%w+:%d+)$') or 'all:0'
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. position)
return position
