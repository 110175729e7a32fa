-- Begin, or take over, the restore of a bucket that lost its counters, or holds older ones than were stored.
-- KEYS 1 ready   2 cursor   3… everything else that the bucket's counters consist of, but not what is pending
-- ARGV 1 the caller's nonce   2 the number of the bucket's last snapshot   3 that of its last reset; 0: there was none
-- Returns how far totals were restored already, as set:user id; an empty string when the counters are whole
local ready = redis.call('GET', KEYS[1])
if ready and tonumber(ready) >= tonumber(ARGV[2]) then return '' end
-- A copy from before a reset counts what was set to zero since: the stored counters take its place.
if ready and tonumber(ready) < tonumber(ARGV[3]) then redis.call('UNLINK', unpack(KEYS)) end
local cursor = redis.call('GET', KEYS[2])
local position = cursor and string.match(cursor, ':(%w+:%d+)$') or 'all:0'
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. position)
return position
