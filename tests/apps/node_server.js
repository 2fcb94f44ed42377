// Node's http: node_server.js PORT. With a second argument it says over the
// channel that it is ready once that file (a FIFO) ends, and echoes messages.
const fs = require('fs')
const http = require('http')

const VERSION = "1"

const server = http.createServer((request, response) => {
  response.end(JSON.stringify({
    version: VERSION, worker: process.env.WORKER_ID, pid: process.pid,
  }))
})
server.listen(Number(process.argv[2]), '127.0.0.1', () => {
  if (process.argv[3]) {
    fs.readFile(`${process.argv[3]}.${process.env.WORKER_ID}`, () => {
      process.send({ cmd: 'ready' })
    })
    process.on('message', (message) => process.send({ echo: message }))
  }
})
