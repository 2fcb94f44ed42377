// frameworks.js NAME PORT: the facts by Express, Fastify or Koa.
const VERSION = "1"
const [name, port] = process.argv.slice(2)
const facts = () => ({ version: VERSION, worker: process.env.WORKER_ID, pid: process.pid })

if (name === 'express') {
  const app = require('express')()
  app.get('/', (request, response) => response.json(facts()))
  app.listen(port, '127.0.0.1')
} else if (name === 'fastify') {
  const app = require('fastify')()
  app.get('/', async () => facts())
  app.listen({ port: Number(port), host: '127.0.0.1' })
} else {
  const app = new (require('koa'))()
  app.use((context) => { context.body = facts() })
  app.listen(port, '127.0.0.1')
}
