-- Two lines for Wrk.pm: requests, microseconds, p50, p99 and greatest latency (microseconds); and
-- how many requests failed, by kind.
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format("figures %d %d %d %d %d\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), latency.max))
    io.write(string.format("failed connect %d read %d write %d timeout %d status %d\n",
        e.connect, e.read, e.write, e.timeout, e.status))
end
