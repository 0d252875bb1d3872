// A client made with the TypeScript SDK: `client.mjs [options] URL --scenario NAME`, with the
// scenarios, the options and the one JSON line of tests/support/peers/scenarios.py, where they are told.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  McpError,
} from '@modelcontextprotocol/sdk/types.js';
import { features } from './features.mjs';
import { once } from 'node:events';
import { parseArgs } from 'node:util';

// A log message is no answer and may come after it, or never; this bounds the wait for it.
const ARRIVAL_BOUND_MS = 10_000;

const { values: options, positionals: target } = parseArgs({
  allowPositionals: true,
  options: {
    scenario: { type: 'string' },
    transport: { type: 'string', default: 'http' },
    mode: { type: 'string', default: 'legacy' },
    bearer: { type: 'string' },
    declare: { type: 'boolean', default: false },
    plan: { type: 'string', default: '{}' },
    marker: { type: 'string', default: 'm' },
    calls: { type: 'string', default: '40' },
    together: { type: 'string', default: '40' },
    'echo-tool': { type: 'string', default: 'echo' },
    'echo-argument': { type: 'string', default: 'text' },
    'ask-pid': { type: 'boolean', default: false },
    seconds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '6' },
    sessions: { type: 'string', default: '1' },
    used: { type: 'boolean', default: false },
    gate: { type: 'boolean', default: false },
    within: { type: 'string', default: '60' },
  },
});
const plan = JSON.parse(options.plan);
const writeLine = (stream, object) =>
  new Promise((written) => stream.write(`${JSON.stringify(object)}\n`, written));
const tell = (event, fields) => writeLine(process.stderr, { event, ...fields });

function makeTransport() {
  if (options.transport === 'stdio') {
    const [command, ...args] = target;
    return new StdioClientTransport({ command, args, stderr: 'inherit' });
  }
  const url = new URL(target[0]);
  const headers = options.bearer ? { authorization: `Bearer ${options.bearer}` } : {};
  return options.transport === 'sse'
    ? new SSEClientTransport(url, { requestInit: { headers } })
    : new StreamableHTTPClientTransport(url, { requestInit: { headers } });
}

function answerQuestions(client) {
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
    const [name] = Object.keys(params.requestedSchema.properties);
    return { action: 'accept', content: { [name]: `said to: ${params.message}` } };
  });
  client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => {
    const [{ content }] = params.messages;
    const { text } = Array.isArray(content) ? content[0] : content;
    return {
      role: 'assistant',
      content: { type: 'text', text: `sampled from: ${text}` },
      model: 'none',
    };
  });
  client.setRequestHandler(ListRootsRequestSchema, () => ({
    roots: [{ uri: 'file:///peer/place', name: 'root' }],
  }));
}

async function connect() {
  const capabilities = options.declare ? { elicitation: {}, sampling: {}, roots: {} } : {};
  const client = new Client({ name: 'peer', version: '1.0' }, { capabilities });
  if (options.declare) answerQuestions(client);
  const logs = { entries: [], onMore: () => {} };
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => {
    logs.entries.push(params);
    logs.onMore();
  });
  const transport = makeTransport();
  const talk = { client, logs, transport, revision: null };
  // The client keeps the negotiated revision to itself, but tells it to its transport.
  const take = transport.setProtocolVersion?.bind(transport);
  transport.setProtocolVersion = (revision) => {
    talk.revision = revision;
    take?.(revision);
  };
  await client.connect(transport);
  return talk;
}

async function attempt(step) {
  try {
    return { result: await step };
  } catch (refused) {
    if (!(refused instanceof McpError)) throw refused;
    const { code, message, data } = refused;
    return { error: { code, message, ...(data === undefined ? {} : { data }) } };
  }
}

async function everything(client, kind) {
  const ask = {
    tools: (params) => client.listTools(params),
    resources: (params) => client.listResources(params),
    resourceTemplates: (params) => client.listResourceTemplates(params),
    prompts: (params) => client.listPrompts(params),
  }[kind];
  const found = [];
  let cursor;
  do {
    const page = await ask({ cursor });
    found.push(...page[kind]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}

const call = (client, name, args, onprogress) =>
  attempt(client.callTool({ name, arguments: args }, undefined, { onprogress }));

function hello({ client, revision }) {
  return {
    protocolVersion: revision,
    capabilities: client.getServerCapabilities(),
    serverInfo: client.getServerVersion(),
    instructions: client.getInstructions(),
  };
}

async function tour(talk) {
  const { client } = talk;
  const seen = { hello: hello(talk), ping: await attempt(client.ping()) };
  for (const kind of plan.lists) seen[kind] = await everything(client, kind);
  for (const [label, [name, args]] of Object.entries(plan.calls ?? {})) {
    seen[label] = await call(client, name, args);
  }
  for (const [label, [name, args]] of Object.entries(plan.counted ?? {})) {
    const steps = [];
    seen[label] = await call(client, name, args, ({ progress, total }) =>
      steps.push([progress, total ?? null]),
    );
    seen[`${label}-progress`] = steps;
  }
  for (const [label, uri] of Object.entries(plan.reads ?? {})) {
    seen[label] = await attempt(client.readResource({ uri }));
  }
  for (const [label, [name, args]] of Object.entries(plan.prompted ?? {})) {
    seen[label] = await attempt(client.getPrompt({ name, arguments: args }));
  }
  for (const [label, [ref, argument]] of Object.entries(plan.completions ?? {})) {
    seen[label] = await attempt(client.complete({ ref, argument }));
  }
  return seen;
}

const payload = (marker, number) =>
  `${marker}/${number}/\r\n\u2028\u2029\u0000\u{1f98a}/${'x'.repeat(number * 61)}`;

async function waitForGo() {
  if (!options.gate) return;
  await tell('ready');
  await Promise.race([once(process.stdin, 'data'), once(process.stdin, 'end')]);
  process.stdin.destroy();
}

async function echoes({ client }) {
  const total = Number(options.calls);
  const wrong = [];
  let right = 0;
  let next = 0;
  const worker = async () => {
    while (next < total) {
      const number = next;
      next += 1;
      const sent = payload(options.marker, number);
      const answer = await call(client, options['echo-tool'], { [options['echo-argument']]: sent });
      const content = answer.result?.content ?? [];
      // Some servers put words before what they echo; none may put anything after it.
      if (content.length === 1 && content[0].text.endsWith(sent)) right += 1;
      else wrong.push({ number, answer: JSON.stringify(answer).slice(0, 300) });
    }
  };
  await waitForGo();
  await Promise.all(Array.from({ length: Number(options.together) }, worker));
  const child = options['ask-pid'] ? await call(client, 'pid', {}) : null;
  return { right, wrong: wrong.slice(0, 5), wrong_count: wrong.length, child };
}

async function slowCall({ client }) {
  const progress = [];
  const began = performance.now();
  const args = { seconds: Number(options.seconds), steps: Number(options.steps) };
  const answer = await call(client, 'countdown', args, (step) => {
    progress.push(step.progress);
    tell('progress', { done: step.progress });
  });
  return { ...answer, took_s: (performance.now() - began) / 1000, progress };
}

async function questions(talk) {
  const seen = { hello: hello(talk) };
  for (const [label, [name, args]] of Object.entries(plan.questions)) {
    seen[label] = await call(talk.client, name, args);
  }
  return seen;
}

async function logs({ client, logs: arrived }) {
  const held = () => arrived.entries.some((entry) => JSON.stringify(entry).includes(options.marker));
  const answer = await call(client, 'log', { message: options.marker });
  await new Promise((resolve) => {
    const bound = setTimeout(resolve, ARRIVAL_BOUND_MS);
    arrived.onMore = () => {
      if (!held()) return;
      clearTimeout(bound);
      resolve();
    };
    arrived.onMore();
  });
  return { ...answer, logs: arrived.entries };
}

// Closing a transport sends no DELETE; a session is ended on purpose, as the Python SDKs do.
async function leave({ client, transport }) {
  if (options.transport === 'http') await transport.terminateSession();
  await client.close();
}

async function connectAndVanish() {
  for (let session = 0; session < Number(options.sessions); session += 1) {
    const { client } = await connect();
    const args = { [options['echo-argument']]: 'here I am' };
    if (options.used) await call(client, options['echo-tool'], args);
  }
  await waitForGo();
  await writeLine(process.stdout, { sessions: Number(options.sessions) });
  process.exit(0);
}

const scenarios = { tour, echoes, 'slow-call': slowCall, questions, logs };

setTimeout(() => {
  console.error(`gave up after ${options.within} s`);
  process.exit(1);
}, Number(options.within) * 1000).unref();

if (options.scenario === 'connect-and-vanish') await connectAndVanish();
if (options.scenario === 'features') {
  await writeLine(process.stdout, await features({ attempt, call, connect, leave }, options));
  process.exit(0);
}
const talk = await connect();
await writeLine(process.stdout, await scenarios[options.scenario](talk));
await leave(talk);
