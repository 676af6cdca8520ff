-- The load that wrk makes: one fixed POST, and a last line that a program can read.
-- wrk … -s load.lua URL -- FILE KEY     (FILE holds the body)
init = function(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. args[2]
end

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "figures: requests=%d microseconds=%d failed=%d status=%d p50=%d p99=%d\n",
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
