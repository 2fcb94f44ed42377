// Node's own HTTP server: python -m recluster -- node node_server.js [PORT]
// Knows nothing of recluster. Edit VERSION, then `kill -USR2` the master.
'use strict';

const http = require('http');

const VERSION = '1';

const server = http.createServer((request, response) => {
  const facts = { version: VERSION, worker: process.env.WORKER_ID, pid: process.pid };
  const body = JSON.stringify(facts) + '\n';
  response.writeHead(200, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(body);
});

server.listen(Number(process.argv[2] || 8000), '127.0.0.1');
