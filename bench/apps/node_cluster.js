// Node's cluster module, its own round robin, over the built-in Node server of
// `python -m recluster.bench`: node_cluster.js WORKERS SERVER.js
// Says {"port": P, "pids": [...]} when all workers listen.
const cluster = require('cluster')

if (cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR
  const count = Number(process.argv[2])
  const pids = []
  let listening = 0
  for (let id = 0; id < count; id++) {
    pids.push(cluster.fork({ WORKER_ID: String(id) }).process.pid)
  }
  cluster.on('listening', (worker, address) => {
    if (++listening === count) console.log(JSON.stringify({ port: address.port, pids }))
  })
  cluster.on('exit', () => {}) // a dead worker is not replaced, as in the other bare servers
} else {
  require(process.argv[3])
}
