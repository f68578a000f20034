// GET and POST with undici's ProxyAgent; the URL is the argument, the placeholder in API_KEY.
// UNDICI_DIR is the directory whose node_modules holds undici.
import { createRequire } from "node:module";

const require = createRequire(process.env.UNDICI_DIR + "/");
const { ProxyAgent, request } = require("undici");
const dispatcher = new ProxyAgent(process.env.HTTPS_PROXY ?? process.env.https_proxy);
const headers = { authorization: `Bearer ${process.env.API_KEY}` };
for (const options of [{ method: "GET" }, { method: "POST", body: "x".repeat(50000) }]) {
  const answer = await request(process.argv[2], { ...options, headers, dispatcher });
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
  console.log(JSON.stringify(answer.headers));
  console.log(await answer.body.text());
}
await dispatcher.close();
