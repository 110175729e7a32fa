-- Note that a run of a worker's job has ended, by Redis's own clock.
-- KEYS 1 jobs
-- ARGV 1 job   2 how long it took (ms)   3 1 if it failed, else 0
-- Returns the number of the job's runs.
local time, job = redis.call('TIME'), ARGV[1]
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], job .. ':ended_ms', now_ms, job .. ':took_ms', ARGV[2])
if ARGV[3] == '0' then redis.call('HSET', KEYS[1], job .. ':succeeded_ms', now_ms) end
redis.call('HINCRBY', KEYS[1], job .. ':took_total_ms', ARGV[2])
redis.call('HINCRBY', KEYS[1], job .. ':failed', ARGV[3])
return redis.call('HINCRBY', KEYS[1], job .. ':runs', 1)
