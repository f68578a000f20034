// GET with undici's ProxyAgent through an HTTPS proxy, with a client certificate towards the proxy.
// Arguments: proxy URL, target URL, the proxy's CA, the target's CA, certificate, key (files).
// The placeholder is in API_KEY; UNDICI_DIR is the directory whose node_modules holds undici.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.UNDICI_DIR + "/");
const { ProxyAgent, request } = require("undici");
const [proxy, target, proxyCa, targetCa, cert, key] = process.argv.slice(2);
const dispatcher = new ProxyAgent({
  uri: proxy,
  proxyTls: { ca: readFileSync(proxyCa), cert: readFileSync(cert), key: readFileSync(key) },
  requestTls: { ca: readFileSync(targetCa) },
});
const headers = { authorization: `Bearer ${process.env.API_KEY}` };
const answer = await request(target, { headers, dispatcher });
if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
console.log(JSON.stringify(answer.headers));
console.log(await answer.body.text());
await dispatcher.close();
