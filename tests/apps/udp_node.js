// An echo that tells who it is: udp_node.js PORT.
const VERSION = "1";
const socket = require("dgram").createSocket("udp4");
socket.on("message", (data, peer) => {
    const facts = {version: VERSION, worker: process.env.WORKER_ID, pid: process.pid, echo: String(data)};
    socket.send(JSON.stringify(facts), peer.port, peer.address);
});
socket.bind(Number(process.argv[2]), "127.0.0.1");
