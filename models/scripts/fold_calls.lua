-- Fold some of a bucket's pending calls into its totals, of all time and of the hour and the day of each call.
-- KEYS 1 pending   2 totals   3 callers   4 dirty; the totals of a window have the key 2 with `:` and the window's name
-- ARGV 1 cursor of the scan, 0 to begin   2 how many pairs of user and hour to fold at most
-- Returns the cursor to go on with; '0' when all that was pending at the beginning of the scan is folded; '' when the
--         same cursor has more, because a small hash is scanned whole
local scanned = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local cursor, found = scanned[1], scanned[2]
if #found == 0 then return cursor end
local most = 2 * ARGV[2]
if #found > most then cursor = '' end
local now_ms, done, ends_ms = redis.call('TIME')[1] * 1000, {}, {}

for i = 1, math.min(#found, most), 2 do
  local uid, hour = string.match(found[i], '^(%d+):(%d+)$')
  local member, calls = string.format('%012.0f', uid), '-' .. found[i + 1]
  -- Totals are negative: the set's own order is then most calls first and, among equals, the lower user id.
  -- Whoever has a total is in the HyperLogLog already: both are kept, lost and restored together.
  if redis.call('ZINCRBY', KEYS[2], calls, member) == calls then redis.call('PFADD', KEYS[3], uid) end
  local day = math.floor(hour / 24)
  -- As long again as they lasted: models.windows.
  for window, keep_until_ms in pairs({ ['h' .. hour] = (hour + 2) * 3600000, ['d' .. day] = (day + 2) * 86400000 }) do
    if keep_until_ms > now_ms then
      redis.call('ZINCRBY', KEYS[2] .. ':' .. window, calls, member)
      ends_ms[window] = keep_until_ms
    end
  end
  done[#done + 1] = found[i]
end

for window, keep_until_ms in pairs(ends_ms) do redis.call('PEXPIREAT', KEYS[2] .. ':' .. window, keep_until_ms) end
redis.call('SADD', KEYS[4], unpack(done))
redis.call('HDEL', KEYS[1], unpack(done))
return cursor
