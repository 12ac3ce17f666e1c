// The Fluent organisation's Forward server: prints what arrives, one JSON object a line.
//
//   server.js PORT       SHARED_KEY, USERNAME and PASSWORD may stand in the environment

const fs = require("fs");
const {FluentServer} = require("@fluent-org/logger");

const {SHARED_KEY: sharedKey, USERNAME: username, PASSWORD: password} = process.env;
const security = sharedKey && {
  serverHostname: "receiver",
  sharedKey,
  authorize: Boolean(username),
  userDict: {[username]: password},
};
const fluent = new FluentServer({security, listenOptions: {host: "127.0.0.1", port: Number(process.argv[2])}});

// The library writes an acknowledgement before it hands the records over (build/src/server.js, handleConnection). A test
// that kills this process must not find a record acknowledged and not printed: so an acknowledgement, the one message
// that is a map of one entry, waits until the library is through with its records. For the same reason printing is
// synchronous; process.stdout is not when the pipe is full.
const MAP_OF_ONE = 0x81;
fluent.server.prependListener("connection", socket => {
  const write = socket.write.bind(socket);
  socket.write = message => (message[0] === MAP_OF_ONE ? queueMicrotask(() => write(message)) : write(message));
});

fluent.on("entry", (tag, {epoch, nano}, record) => {
  fs.writeFileSync(1, JSON.stringify({tag, time: [epoch, nano], record}) + "\n");
});

fluent.listen();
