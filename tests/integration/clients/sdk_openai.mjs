// A chat completion with OpenAI's SDK for Node: BASE_URL.  SDK_DIR has it in its node_modules.
import { createRequire } from "node:module";

const require = createRequire(process.env.SDK_DIR + "/x.js");
const OpenAI = require("openai").default;
const client = new OpenAI({ baseURL: process.argv[2], maxRetries: 0 });
const answer = await client.chat.completions.create({
  model: "test",
  messages: [{ role: "user", content: "What did I send?" }],
});
console.log(JSON.stringify(answer));
