// Node's http with requests that last: node_long.js PORT GATE [disconnect]. It has no handler
// for any signal. /hold answers when the FIFO GATE ends, /sse never ends, POST answers how many
// bytes came. With `disconnect` it does what the original recluster asks for at that message.
const fs = require('fs')
const http = require('http')

const server = http.createServer((request, response) => {
  const facts = { worker: process.env.WORKER_ID, pid: process.pid }
  if (request.url === '/hold') {
    fs.readFile(process.argv[3], () => response.end(JSON.stringify(facts)))
  } else if (request.url === '/sse') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    setInterval(() => response.write('data: tick\n\n'), 50)
  } else {
    let bytes = 0
    request.on('data', (data) => { bytes += data.length })
    request.on('end', () => response.end(JSON.stringify({ ...facts, bytes })))
  }
})
if (process.argv[4] === 'disconnect') {
  process.on('message', (message) => {
    if (message.cmd === 'disconnect') server.close(() => process.exit(0))
  })
}
server.listen(Number(process.argv[2]), '127.0.0.1')
