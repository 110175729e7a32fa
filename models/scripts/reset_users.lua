-- Set the counters of some of a bucket's users to zero.
-- KEYS 1 ready   2 pending   3 drainer   4… the totals, of all time and of the windows that are kept
-- ARGV 1 the number of the reset   2 the number of the bucket's last snapshot   3… user ids
-- Returns 1 done, 0 nothing was changed: the counters are not whole, a restore must mend them first
local ready = redis.call('GET', KEYS[1])
if not ready or tonumber(ready) < tonumber(ARGV[2]) then return 0 end

local wanted, members = {}, {}
for i = 3, #ARGV do
  wanted[ARGV[i]] = true
  members[#members + 1] = string.format('%012.0f', ARGV[i])
end
for i = 4, #KEYS do redis.call('ZREM', KEYS[i], unpack(members)) end

-- Little waits there: it was folded a moment ago.
local cursor = '0'
repeat
  local scanned = redis.call('HSCAN', KEYS[2], cursor, 'COUNT', 1000)
  cursor = scanned[1]
  for i = 1, #scanned[2], 2 do
    local field = scanned[2][i]
    if wanted[string.match(field, '^%d+')] then redis.call('HDEL', KEYS[2], field) end
  end
until cursor == '0'

-- A snapshot that is being finished would set `ready` back: what it set aside is set aside again by the next.
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[1], ARGV[1])
return 1
