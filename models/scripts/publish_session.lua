-- Cache a session or a tombstone, unless the cache knows something newer: the fence of design, section 6.
-- KEYS 1 session
-- ARGV 1 version   2 value (begins with the version)   3 when the entry may go, in ms since 1970
-- Returns 1 written, 0 an entry of the same or a higher version stays
local cached = redis.call('GET', KEYS[1])
if cached and tonumber(string.match(cached, '^%d+')) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
