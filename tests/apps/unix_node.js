// A Node http server on the path argv[2].
const VERSION = "1";
const facts = () => JSON.stringify({version: VERSION, worker: process.env.WORKER_ID, pid: process.pid});

const server = require("http").createServer((request, response) => {
    response.setHeader("Connection", "close");
    response.end(facts());
});
server.listen(process.argv[2]);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
