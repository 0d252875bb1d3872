// LangChain's client of HTTP+SSE: `langchain.mjs URL`. It takes the tools once and keeps them, calls
// one, writes `{"event": "called"}`, and waits for a line on stdin, during which the bridge is
// restarted. Then it calls until a call is answered; nothing here connects again: the EventSource
// below LangChain does. The report is the last line on stdout.

import { MultiServerMCPClient } from '@langchain/mcp-adapters';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';

const AT_ONCE = 8;
const PAUSE_MS = 200;

const write = (report) => process.stdout.write(`${JSON.stringify(report)}\n`);
const client = new MultiServerMCPClient({
  mcpServers: { it: { transport: 'sse', url: process.argv[2] } },
});
const tools = await client.getTools();
const echo = tools.find((tool) => tool.name === 'echo');
const said = (text) => echo.invoke({ text });

const before = await said('before \u2028 \u{1f98a}');
write({ event: 'called' });
await once(process.stdin, 'data');

const refused = [];
let after;
while (after === undefined) {
  try {
    after = await said('after \u2028 \u{1f98a}');
  } catch (error) {
    refused.push(String(error));
    await pause(PAUSE_MS); // nothing tells that the stream is there again
  }
}
const texts = Array.from({ length: AT_ONCE }, (_, number) => `text ${number}`);
const answers = await Promise.all(texts.map(said));
write({
  tools: tools.map((tool) => tool.name),
  before,
  after,
  refused,
  own: texts.filter((text, number) => answers[number] === text).length,
});
await client.close();
process.exit(0);
