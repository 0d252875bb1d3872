// A stdio server made with the TypeScript SDK: the tools, resources and prompt of the Python
// servers in tests/support/peers, under the same names; what the later tools do is told in
// tests/support/peers/server_mcp1.py.

import { completable } from '@modelcontextprotocol/sdk/server/completable.js';
import { McpServer, ResourceTemplate } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import {
  CreateMessageResultSchema,
  ElicitResultSchema,
  EmptyResultSchema,
  ListRootsResultSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';

const server = new McpServer(
  { name: 'peer-typescript', version: '1.0' },
  { capabilities: { logging: {}, resources: { subscribe: true } }, instructions: 'server of the TypeScript SDK' },
);

const text = (words) => ({ content: [{ type: 'text', text: words }] });

server.registerTool('echo', { inputSchema: { text: z.string() } }, ({ text: said }) => text(said));

server.registerTool(
  'add',
  { inputSchema: { a: z.number(), b: z.number() }, outputSchema: { sum: z.number() } },
  ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } }),
);

server.registerTool(
  'countdown',
  { inputSchema: { seconds: z.number(), steps: z.number() } },
  async ({ seconds, steps }, extra) => {
    const progressToken = extra._meta?.progressToken;
    for (let step = 0; step < steps; step += 1) {
      if (progressToken !== undefined) {
        await extra.sendNotification({
          method: 'notifications/progress',
          params: { progressToken, progress: step, total: steps, message: `${steps - step} to go` },
        });
      }
      await pause((seconds * 1000) / steps);
    }
    return text('liftoff');
  },
);

server.registerTool('slow', { inputSchema: { seconds: z.number() } }, async ({ seconds }) => {
  await pause(seconds * 1000);
  return text('rested');
});

server.registerTool('fail', { inputSchema: { message: z.string() } }, ({ message }) => {
  throw new Error(message);
});

server.registerTool('log', { inputSchema: { message: z.string() } }, async ({ message }) => {
  await server.server.sendLoggingMessage({ level: 'warning', logger: 'peer', data: message });
  return text('logged');
});

server.registerTool('pid', {}, () => text(String(process.pid)));

server.registerTool('ask', { inputSchema: { question: z.string() } }, async ({ question }, extra) => {
  const answer = await extra.sendRequest(
    {
      method: 'elicitation/create',
      params: {
        message: question,
        requestedSchema: {
          type: 'object',
          properties: { answer: { type: 'string' } },
          required: ['answer'],
        },
      },
    },
    ElicitResultSchema,
  );
  return text(`${answer.action}: ${answer.content?.answer}`);
});

server.registerTool('sample', { inputSchema: { prompt: z.string() } }, async ({ prompt }, extra) => {
  const said = await extra.sendRequest(
    {
      method: 'sampling/createMessage',
      params: {
        messages: [{ role: 'user', content: { type: 'text', text: prompt } }],
        maxTokens: 10,
      },
    },
    CreateMessageResultSchema,
  );
  return text(said.content.text);
});

server.registerTool('roots', {}, async (extra) => {
  const listed = await extra.sendRequest({ method: 'roots/list' }, ListRootsResultSchema);
  return text(listed.roots.map((root) => root.uri).join(' '));
});

const tellProgress = async ({ _meta, sendNotification }) => {
  const progressToken = _meta?.progressToken;
  if (progressToken === undefined) return;
  const params = { progressToken, progress: 0, total: 1 };
  await sendNotification({ method: 'notifications/progress', params });
};

const ENDED_WITHIN_MS = 10_000;
const cancelled = new Map();
const items = new Map();
const subscribed = new Set();

server.registerTool('wait', { inputSchema: { label: z.string() } }, async ({ label }, extra) => {
  const aborted = new Promise((resolve) => extra.signal.addEventListener('abort', resolve));
  cancelled.set(label, aborted);
  await tellProgress(extra);
  await aborted;
  return text('never sent');
});

server.registerTool('ended', { inputSchema: { label: z.string() } }, async ({ label }) => {
  const late = pause(ENDED_WITHIN_MS, 'still waiting', { ref: false });
  return text(await Promise.race([cancelled.get(label).then(() => 'cancelled'), late]));
});

server.registerTool('ping_client', {}, async (extra) => {
  await extra.sendRequest({ method: 'ping' }, EmptyResultSchema);
  return text('pong');
});

server.registerTool('big', { inputSchema: { size: z.number() } }, async ({ size }, extra) => {
  await tellProgress(extra);
  return text('x'.repeat(size));
});

server.registerTool(
  'change',
  { inputSchema: { name: z.string(), text: z.string() } },
  async ({ name, text: held }) => {
    const uri = `peer://item/${name}`;
    items.set(name, held);
    if (subscribed.has(uri)) await server.server.sendResourceUpdated({ uri });
    return text('changed');
  },
);

server.server.setRequestHandler(SubscribeRequestSchema, ({ params }) => {
  subscribed.add(params.uri);
  return {};
});
server.server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => {
  subscribed.delete(params.uri);
  return {};
});

server.registerResource('greeting', 'peer://greeting', { mimeType: 'text/plain' }, (uri) => ({
  contents: [{ uri: uri.href, mimeType: 'text/plain', text: 'good day' }],
}));

server.registerResource('bytes', 'peer://bytes', { mimeType: 'image/png' }, (uri) => ({
  contents: [
    {
      uri: uri.href,
      mimeType: 'image/png',
      blob: Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('base64'),
    },
  ],
}));

server.registerResource(
  'item',
  new ResourceTemplate('peer://item/{name}', { list: undefined }),
  { mimeType: 'text/plain' },
  (uri, { name }) => ({
    contents: [{ uri: uri.href, mimeType: 'text/plain', text: items.get(name) ?? `item ${name}` }],
  }),
);

server.registerPrompt(
  'summarize',
  {
    argsSchema: {
      topic: completable(z.string(), (begun) =>
        ['bees', 'beans', 'tea'].filter((topic) => topic.startsWith(begun)),
      ),
    },
  },
  ({ topic }) => ({
    messages: [{ role: 'user', content: { type: 'text', text: `Summarize ${topic}.` } }],
  }),
);

await server.connect(new StdioServerTransport());
