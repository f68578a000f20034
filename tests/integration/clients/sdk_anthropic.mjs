// A message with Anthropic's SDK for Node: BASE_URL.  SDK_DIR has it in its node_modules.
import { createRequire } from "node:module";

const require = createRequire(process.env.SDK_DIR + "/x.js");
const Anthropic = require("@anthropic-ai/sdk").default;
const client = new Anthropic({ baseURL: process.argv[2], maxRetries: 0 });
const answer = await client.messages.create({
  model: "test",
  max_tokens: 100,
  messages: [{ role: "user", content: "What did I send?" }],
});
console.log(JSON.stringify(answer));
