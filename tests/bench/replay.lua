-- wrk script: replays raw HTTP requests from a file, in random order, over and over.
-- BENCH_REQUESTS  the file: whole requests with a NUL byte between them
-- BENCH_PORTS     ports of the loopback between commas, one thread each; none: the port of the URL
-- BENCH_PAUSE_MS  how long each connection rests before each request; 0 or none: it does not
-- BENCH_STATUSES  1 to count every answer by its status, which costs the client some of its speed
-- Prints one line of JSON at the end. `errors` are answers above 399, `broken` failed connections, reads and writes.
local threads, requests, position = {}, {}, 0
statuses = {}

function setup(thread)
  local ports = {}
  for port in string.gmatch(os.getenv('BENCH_PORTS') or '', '%d+') do ports[#ports + 1] = port end
  if #ports > 0 then thread.addr = wrk.lookup(wrk.host, ports[#threads % #ports + 1])[1] end
  threads[#threads + 1] = thread
  thread:set('seed', #threads)
end

function init()
  local file = io.open(os.getenv('BENCH_REQUESTS'), 'rb')
  for text in string.gmatch(file:read('*a'), '[^%z]+') do requests[#requests + 1] = text end
  file:close()
  math.randomseed(os.time() * 100 + seed)
  for last = #requests, 2, -1 do
    local other = math.random(last)
    requests[last], requests[other] = requests[other], requests[last]
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

local pause_ms = tonumber(os.getenv('BENCH_PAUSE_MS') or '0')
if pause_ms > 0 then
  -- Uniform around the mean, so that the connections do not march in step.
  function delay() return math.random(0, 2 * pause_ms) end
end

if os.getenv('BENCH_STATUSES') == '1' then
  function response(status, headers)
    local name = tostring(status) .. (headers['Retry-After'] and ' with Retry-After' or '')
    statuses[name] = (statuses[name] or 0) + 1
  end
end

function done(summary, latency)
  local counts, errors = {}, summary.errors
  for _, thread in ipairs(threads) do
    for name, count in pairs(thread:get('statuses')) do counts[name] = (counts[name] or 0) + count end
  end
  local pairs_ = {}
  for name, count in pairs(counts) do pairs_[#pairs_ + 1] = string.format('"%s":%d', name, count) end
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"errors":%d,"broken":%d,"timeouts":%d,"statuses":{%s}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write, errors.timeout, table.concat(pairs_, ',')))
end
