// `client.responses` of the official node SDK, on servers that have only chat. Started by tests/e2e/test_clients.py.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const OpenAI = createRequire(`${process.env.CLIENT_HOME}/package.json`)("openai").default;
const client = new OpenAI({ baseURL: process.env.GATEWAY_URL, apiKey: process.env.GATEWAY_KEY });
const look = { type: "function", name: "look", parameters: { type: "object", properties: {} }, strict: false };

test("create", async () => {
  const answer = await client.responses.create({ model: "auto", input: "Count to ten.", temperature: 0, max_output_tokens: 4 });
  assert.ok(answer.output_text);
  assert.equal(answer.status, "incomplete");
  assert.equal(answer.incomplete_details.reason, "max_output_tokens");
  assert.equal(answer.usage.output_tokens, 4);
  assert.equal(typeof answer.usage.cost, "number");
});

test("stream", async () => {
  const stream = await client.responses.create({ model: "auto", input: "Say hello.", temperature: 0, max_output_tokens: 6, stream: true });
  let text = "";
  let last = null;
  let number = 0;
  for await (const event of stream) {
    assert.equal(event.sequence_number, number++);
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.ok(text);
  assert.match(last.type, /^response\.(completed|incomplete)$/);
  assert.equal(last.response.output[0].content[0].text, text);
});

test("the SDK's own accumulation", async () => {
  const stream = client.responses.stream({ model: "loop", input: "Say hello." });
  const deltas = [];
  stream.on("response.output_text.delta", (event) => deltas.push(event.delta));
  const final = await stream.finalResponse();
  assert.equal(deltas.join(""), "Hello there.");
  assert.equal(final.output_text, "Hello there.");
});

for (const model of process.env.GATEWAY_DIALECTS.split(",")) {
  test(`${model}, as documented, reads the same whole and streamed`, async () => {
    const given = { model, input: "Hi", ...(process.env.GATEWAY_CALLS.split(",").includes(model) && { tools: [look] }) };
    const whole = await client.responses.create(given);
    const final = await client.responses.stream(given).finalResponse();
    const calls = (response) => response.output.filter((item) => item.type === "function_call").map((item) => item.arguments);
    assert.equal(final.output_text, whole.output_text);
    assert.deepEqual(calls(final), calls(whole));
    assert.ok(given.tools ? calls(whole).length : whole.output_text);
  });
}

test("structured output", async () => {
  const schema = {
    type: "object", properties: { age: { type: "integer", maximum: 99 } }, required: ["age"], additionalProperties: false,
  };
  const answer = await client.responses.create({
    model: "auto", input: "Ann is 31 years old. Give her age.", temperature: 0, max_output_tokens: 40,
    text: { format: { type: "json_schema", name: "age", strict: true, schema } },
  });
  assert.ok(Number.isInteger(JSON.parse(answer.output_text).age));
});

test("tools", async () => {
  const input = [{ role: "user", content: "Look." }];
  const { output } = await client.responses.create({ model: "tools", input, tools: [look] });
  assert.deepEqual([output[0].type, output[0].name, output[0].arguments], ["function_call", "look", '{"a":1}']);
  const result = { type: "function_call_output", call_id: output[0].call_id, output: "A tree." };
  const next = await client.responses.create({ model: "loop", input: [...input, ...output, result], tools: [look] });
  assert.equal(next.output_text, "Hello there.");
  const streamed = await client.responses.stream({ model: "tools", input, tools: [look] }).finalResponse();
  assert.equal(streamed.output[0].arguments, '{"a":1}');
});

test("what cannot be carried is BadRequestError", async () => {
  await assert.rejects(
    client.responses.create({ model: "auto", input: "Hi", tools: [{ type: "web_search" }] }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "tools" && /web_search/.test(error.message),
  );
  await assert.rejects(client.responses.retrieve("resp_1"), (error) => error instanceof OpenAI.NotFoundError);
});

test("a stream that breaks is APIError", async () => {
  const stream = await client.responses.create({ model: "cut", input: "Hi", stream: true });
  let text = "";
  await assert.rejects(async () => {
    for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
  }, (error) => error instanceof OpenAI.APIError && /broke off/.test(error.message));
  assert.ok(text);
});
