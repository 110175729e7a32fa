-- Keep how far sessions were published to runs of servers.
-- KEYS 1 the states
-- ARGV of each its run id, its state, and 1 when it has got everything, else 0
-- Returns how many were kept.
local kept = 0
for at = 1, #ARGV, 3 do
  -- `watermark:beat…`, where a beat of 0 stands for a run that has not got everything.
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  local is_whole = known and not string.find(known, '^%d+:0:') and string.find(known, '^%d+:%d+')
  if ARGV[at + 2] == '1' or not is_whole then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    kept = kept + 1
  end
end
return kept
