VERSION = "1"
run(lambda do |env|
  facts = %({"version": "#{VERSION}", "worker": "#{ENV["WORKER_ID"]}", "pid": #{Process.pid}})
  [200, { "content-type" => "application/json" }, [facts]]
end)
