// Node's http.
const http = require('http')

const facts = `worker=${process.env.WORKER_ID} pid=${process.pid}\n`
const nobody = new Int32Array(new SharedArrayBuffer(4))

const server = http.createServer((request, response) => {
  const ms = Number(request.url.split('?ms=')[1])
  if (ms) Atomics.wait(nobody, 0, 0, ms) // the whole loop stands still, as is wanted
  response.end(facts)
})
server.keepAliveTimeout = 120000
server.listen(0, '127.0.0.1')
