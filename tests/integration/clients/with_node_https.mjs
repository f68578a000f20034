// GET with Node's own https through a CONNECT made by hand; URL as argument, placeholder in API_KEY.
import http from "node:http";
import https from "node:https";

const url = new URL(process.argv[2]);
const proxy = new URL(process.env.HTTPS_PROXY ?? process.env.https_proxy);
const connect = http.request({
  host: proxy.hostname,
  port: proxy.port,
  method: "CONNECT",
  path: url.host,
  headers: { host: url.host },
});
connect.on("connect", (answer, socket) => {
  if (answer.statusCode !== 200) throw new Error(`CONNECT ${answer.statusCode}`);
  const headers = { authorization: `Bearer ${process.env.API_KEY}` };
  https.get(url, { socket, agent: false, headers }, (reply) => {
    console.log(reply.statusCode, JSON.stringify(reply.rawHeaders));
    reply.pipe(process.stdout);
    reply.on("end", () => socket.destroy());
  });
});
connect.end();
