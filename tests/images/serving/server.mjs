#!/usr/bin/env node
// A stdio server of Node.js alone, with the tools of the bundled example that the tests call: echo,
// countdown (with progress), and orphans, which leaves processes behind that end and that nobody
// waits for.

import { spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const send = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const text = (words) => ({ content: [{ type: 'text', text: words }] });

const tools = {
  echo: ({ text: said }) => text(said),
  countdown: async ({ seconds, steps = 5 }, progressToken) => {
    for (let progress = 1; progress <= steps; progress += 1) {
      await pause((seconds * 1000) / steps);
      if (progressToken !== undefined) {
        send({ method: 'notifications/progress', params: { progressToken, progress, total: steps } });
      }
    }
    return text('liftoff');
  },
  orphans: () => {
    spawnSync('sh', ['-c', 'for i in 1 2 3; do (: &); done']);
    return text('left');
  },
};

const methods = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'test-server', version: '1.0.0' },
  }),
  ping: () => ({}),
  'tools/list': () => ({
    tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } })),
  }),
  'tools/call': ({ name, arguments: given, _meta }) => tools[name](given, _meta?.progressToken),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) continue;
  if (!(method in methods)) {
    send({ id, error: { code: -32601, message: 'unknown method' } });
    continue;
  }
  Promise.resolve(methods[method](params ?? {})).then((result) => send({ id, result }));
}
