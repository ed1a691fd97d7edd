// Vercel's AI SDK, unchanged but for its base URL. Started by tests/e2e/test_client_vercel_ai.py, which says where.
import assert from "node:assert/strict";
import test from "node:test";

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const { GATEWAY_URL: baseURL, GATEWAY_KEY: apiKey } = process.env;
const settings = { name: "gateway", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true };
const gateway = createOpenAICompatible(settings);
const openai = createOpenAI({ baseURL, apiKey }); // asks /responses
const dialects = process.env.GATEWAY_DIALECTS.split(",");
const calls = (model) => process.env.GATEWAY_CALLS.split(",").includes(model);
const prompt = "Say hello.";
const weather = tool({ description: "By city.", inputSchema: z.object({ city: z.string().max(12) }) });
const look = tool({ description: "Looks.", inputSchema: z.looseObject({}) });

async function whole(model, more = {}) {
  const answer = await generateText({ model, prompt, maxRetries: 0, ...more });
  return { text: answer.text, calls: answer.toolCalls.map(({ toolName, input }) => ({ toolName, input })), usage: answer.usage };
}

async function streamed(model, more = {}) {
  const errors = [];
  const answer = streamText({ model, prompt, maxRetries: 0, onError: ({ error }) => errors.push(error), ...more });
  let text = "";
  for await (const piece of answer.textStream) text += piece;
  if (errors.length) throw errors[0];
  const toolCalls = await answer.toolCalls;
  return { text, calls: toolCalls.map(({ toolName, input }) => ({ toolName, input })), usage: await answer.usage };
}

for (const ask of [whole, streamed]) {
  test(`chat, ${ask.name}`, async () => {
    const { text, usage } = await ask(gateway("auto"), { maxOutputTokens: 8 });
    assert.ok(text);
    assert.ok(usage.inputTokens > 0);
    assert.ok(usage.outputTokens >= 1 && usage.outputTokens <= 8);
  });

  test(`responses, ${ask.name}`, async () => {
    const { text, usage } = await ask(openai("auto"), { maxOutputTokens: 16 });
    assert.ok(text);
    assert.ok(usage.outputTokens >= 1 && usage.outputTokens <= 16);
  });

  for (const model of [gateway("tools"), openai("tools")]) {
    test(`a real model calls a tool through ${model.provider}, ${ask.name}`, async () => {
      const given = { prompt: "What is the weather in Bern?", tools: { weather }, toolChoice: "required" };
      const { calls } = await ask(model, { ...given, temperature: 0, maxOutputTokens: 100 });
      assert.deepEqual(calls, [{ toolName: "weather", input: { city: "Bern" } }]);
    });
  }

  test(`structured output, ${ask.name}`, async () => {
    const output = Output.object({ schema: z.object({ age: z.int().min(0).max(99) }) });
    const { text } = await ask(gateway("auto"), { output, prompt: "Ann is 31 years old. Give her age.", maxOutputTokens: 40 });
    assert.ok(Number.isInteger(JSON.parse(text).age));
  });

  test(`an unknown model, ${ask.name}`, async () => {
    await assert.rejects(ask(gateway("autoo")), (error) => APICallError.isInstance(error) && error.statusCode === 404
      && error.data.error.code === "model_not_found" && !error.isRetryable);
  });

  test(`every target failed, ${ask.name}`, async () => {
    await assert.rejects(ask(gateway("broken")), (error) => APICallError.isInstance(error) && error.statusCode === 502
      && error.responseHeaders["x-should-retry"] === "false" && error.isRetryable); // which this SDK does not read
  });
}

for (const model of dialects) {
  for (const [name, asked] of [["chat", gateway(model)], ["responses", openai(model)]]) {
    test(`${model}, as documented, reads the same whole and streamed through ${name}`, async () => {
      const more = calls(model) ? { tools: { get_weather: look, "$web_search": look } } : {};
      const [one, other] = [await whole(asked, more), await streamed(asked, more)];
      assert.deepEqual([one.text, one.calls], [other.text, other.calls]);
      assert.ok(calls(model) ? one.calls.length : one.text);
      assert.ok(one.usage.outputTokens > 0);
    });
  }
}

test("structured output is parsed", async () => {
  const schema = z.object({ name: z.string().max(12), age: z.int().min(0).max(99) });
  const { output } = await generateText({
    model: gateway("auto"), output: Output.object({ schema }), prompt: "Ann is 31 years old.", maxOutputTokens: 60,
  });
  assert.deepEqual(Object.keys(output).sort(), ["age", "name"]);
});

test("the tool is run, and its result goes back", async () => {
  const asked = [];
  const run = tool({ ...look, execute: async (input) => { asked.push(input); return "A tree."; } });
  const { steps, text } = await generateText({
    model: gateway("scripted"), prompt, tools: { look: run }, stopWhen: stepCountIs(2), maxRetries: 0,
  });
  assert.deepEqual([asked, steps.length], [[{ a: 1 }], 2]);
  assert.equal(text, "Hello there.");
});

test("embeddings", async () => {
  const { embeddings } = await embedMany({ model: gateway.embeddingModel("auto"), values: ["a cat", "a dog"] });
  assert.deepEqual(embeddings.map((each) => each.length), [576, 576]);
});

test("what the gateway decided is in the headers", async () => {
  const { response } = await generateText({ model: gateway("auto"), prompt, maxOutputTokens: 1 });
  assert.equal(response.headers["x-gateway-route"], "default");
  assert.equal(response.headers["x-gateway-model"], "smol");
  assert.ok(Number(response.headers["x-gateway-cost-usd"]) >= 0);
});

test("a wrong key", async () => {
  const stranger = createOpenAICompatible({ ...settings, apiKey: "sk-wrong" });
  await assert.rejects(whole(stranger("auto")), (error) => error.statusCode === 401 && error.data.error.code === "invalid_api_key");
});

test("a stream that breaks is an error", async () => {
  await assert.rejects(streamed(gateway("cut")), (error) => /broke off/.test(error.message ?? JSON.stringify(error)));
});

test("a stream that is left frees the model", async () => {
  const leave = new AbortController();
  const { textStream } = streamText({ model: gateway("auto"), prompt, maxOutputTokens: 1500, abortSignal: leave.signal });
  for await (const _ of textStream) break;
  leave.abort();
  assert.ok((await whole(gateway("auto"), { maxOutputTokens: 1 })).usage.outputTokens);
});
