// A client made with the TypeScript SDK 2.x: `client2.mjs MODE URL [changes]`, where MODE is `auto`
// or `legacy`. It visits what tests/support/peers/server_referees*.py offer, with `changes` it waits for
// the news that the tools changed, and prints one JSON line with what it saw; judging is the test's
// work.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const GIVE_UP_MS = 60_000;
const CHANGE_WITHIN_MS = 10_000;

setTimeout(() => {
  console.error('gave up');
  process.exit(1);
}, GIVE_UP_MS).unref();

const [mode, url, changes] = process.argv.slice(2);
let changed;
const toolsChanged = new Promise((resolve) => (changed = resolve));
const client = new Client(
  { name: 'peer', version: '2.0' },
  {
    versionNegotiation: { mode },
    capabilities: { elicitation: { form: { applyDefaults: false } }, sampling: {}, roots: {} },
    listChanged: { tools: { autoRefresh: false, debounceMs: 0, onChanged: () => changed(true) } },
  },
);
client.setRequestHandler('elicitation/create', ({ params }) => {
  const [name] = Object.keys(params.requestedSchema.properties);
  return { action: 'accept', content: { [name]: `said to: ${params.message}` } };
});
client.setRequestHandler('sampling/createMessage', ({ params }) => {
  const [{ content }] = params.messages;
  const { text } = Array.isArray(content) ? content[0] : content;
  return { role: 'assistant', content: { type: 'text', text: `sampled from: ${text}` }, model: 'none' };
});
client.setRequestHandler('roots/list', () => ({ roots: [{ uri: 'file:///peer/place' }] }));

const transport = new StreamableHTTPClientTransport(new URL(url));
await client.connect(transport);
const call = async (name, args = {}, options = {}) => {
  const { content } = await client.callTool({ name, arguments: args }, options);
  return content[0].text;
};

const steps = [];
const seen = {
  revision: client.getNegotiatedProtocolVersion(),
  era: client.getProtocolEra(),
  server: client.getServerVersion()?.name,
  tools: (await client.listTools()).tools.map(({ name }) => name),
  text: await call('test_simple_text'),
  progress: await call('test_tool_with_progress', {}, { onprogress: (step) => steps.push(step.progress) }),
  steps,
  sampled: await call('test_sampling', { prompt: 'hum' }),
  asked: await call('test_elicitation_sep1034_defaults'),
  rooted: await call('test_input_required_result_list_roots'),
  header: await call('test_header_parameter', { region: ' H\u00e9 ' }),
};
if (changes) {
  await call('test_trigger_tool_change');
  seen.changed = await Promise.race([
    toolsChanged,
    new Promise((resolve) => setTimeout(resolve, CHANGE_WITHIN_MS, false).unref()),
  ]);
}
const abort = new AbortController();
const waits = call('wait', {}, { signal: abort.signal }).then(
  () => 'answered',
  () => 'aborted',
);
setTimeout(() => abort.abort(), 300);
seen.aborted = await waits;
seen.after = await call('test_simple_text');
await new Promise((written) => process.stdout.write(`${JSON.stringify(seen)}\n`, written));
if (mode === 'legacy') await transport.terminateSession();
await client.close();
process.exit(0);
