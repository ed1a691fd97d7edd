// The official node SDK, unchanged but for its base URL. Started by tests/e2e/test_clients.py, which says where.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const OpenAI = createRequire(`${process.env.CLIENT_HOME}/package.json`)("openai").default;
const client = new OpenAI({ baseURL: process.env.GATEWAY_URL, apiKey: process.env.GATEWAY_KEY });
const messages = [{ role: "user", content: "Say hello in five words." }];

test("chat", async () => {
  const answer = await client.chat.completions.create({ model: "auto", messages, temperature: 0, max_tokens: 12 });
  assert.ok(answer.choices[0].message.content);
  assert.ok(answer.usage.completion_tokens > 0);
  assert.equal(typeof answer.usage.cost, "number");
});

test("stream", async () => {
  const stream = await client.chat.completions.create({
    model: "auto", messages, temperature: 0, max_tokens: 8, stream: true, stream_options: { include_usage: true },
  });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.ok(text);
  assert.ok(usage.completion_tokens >= 1 && usage.completion_tokens <= 8); // the model may end before its cap
});

for (const model of process.env.GATEWAY_DIALECTS.split(",")) {
  test(`${model}, as documented, reads the same whole and streamed`, async () => {
    const calls = process.env.GATEWAY_CALLS.split(",").includes(model);
    const tools = [{ type: "function", function: { name: "look", parameters: { type: "object" } } }];
    const given = { model, messages, ...(calls && { tools }) };
    const whole = (await client.chat.completions.create(given)).choices[0].message;
    let text = "";
    let args = "";
    for await (const { choices } of await client.chat.completions.create({ ...given, stream: true })) {
      for (const { delta } of choices) {
        text += delta?.content ?? "";
        for (const call of delta?.tool_calls ?? []) args += call.function.arguments ?? "";
      }
    }
    assert.ok(calls ? args : text);
    assert.equal(text, whole.content ?? "");
    assert.equal(args, (whole.tool_calls ?? []).map((call) => call.function.arguments).join(""));
  });
}

test("cancel mid-stream", async () => {
  const stream = await client.chat.completions.create({ model: "auto", messages, max_tokens: 1500, stream: true });
  for await (const _ of stream) break; // leaves the loop: the SDK aborts the request
  const next = await client.chat.completions.create({ model: "auto", messages, max_tokens: 1 });
  assert.ok(next.choices.length);
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("auto") && names.includes("smol"));
});

test("an unknown model is NotFoundError", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: "smoll", messages }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found" && error.param === "model",
  );
});

test("a spent budget is told once", async () => {
  const poor = new OpenAI({ baseURL: process.env.GATEWAY_URL, apiKey: process.env.GATEWAY_POOR_KEY });
  const ask = () => poor.chat.completions.create({ model: "dollar", messages, max_tokens: 10 });
  assert.ok((await ask()).choices.length);
  await assert.rejects(ask(), (error) => error instanceof OpenAI.RateLimitError
    && error.code === "insufficient_quota" && error.headers.get("x-should-retry") === "false");
}); // tests/e2e/test_clients.py counts what arrived

test("a limit is waited for", async () => {
  let stream = null;
  let refused = 0;
  const busy = new OpenAI({
    baseURL: process.env.GATEWAY_URL,
    apiKey: process.env.GATEWAY_BUSY_KEY,
    fetch: async (url, options) => {
      const answer = await fetch(url, options);
      if (answer.status === 429 && ++refused === 2) stream.controller.abort(); // gives the place back meanwhile
      return answer;
    },
  });
  stream = await busy.chat.completions.create({ model: "endless", messages, stream: true });
  const words = stream[Symbol.asyncIterator]();
  await words.next(); // holds the key's one place
  const ask = (options) => busy.chat.completions.create({ model: "smol", messages, max_tokens: 2 }, options);
  await assert.rejects(ask({ maxRetries: 0 }), (error) => error instanceof OpenAI.RateLimitError
    && error.code === "rate_limit_exceeded" && error.headers.get("retry-after") === "1");
  assert.ok((await ask()).choices.length);
  assert.ok(refused >= 2);
});
