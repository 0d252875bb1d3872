// Load by clients of the TypeScript SDK: `load.mjs PLAN`, with the plan and the report of
// tests/support/peers/load_mcp1.py, where they are told.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { once } from 'node:events';
import { setTimeout as rest } from 'node:timers/promises';

const WITHIN_MS = 30_000;
const REOPEN_AFTER_MS = 200;
// A call whose answer to a question could not be sent is cancelled after this time: the answer may
// have arrived although its connection broke. The SDK reports the failure and does not send it again,
// so the server would wait for it until the call times out. The Python SDK ends the session itself.
const CANCEL_AFTER_MS = 1000;
const MAX_ERRORS = 2000;

const plan = JSON.parse(process.argv[2]);
const seen = {
  calls: 0,
  right: 0,
  questions: 0,
  late: 0,
  steps: 0,
  reopened: 0,
  kept: 0,
  longest_s: 0,
  errors: [],
  crossed: [],
  id_lengths: [],
  texts: [],
  sessions: plan.plain + plan.asked,
};
let over = false;
let waiting = seen.sessions;

// The clock that all processes share, in seconds.
const now = () => Number(process.hrtime.bigint()) / 1e9;

function failed(began, text, error) {
  if (seen.errors.length < MAX_ERRORS) {
    // "fetch failed" alone does not say whether a connection was refused, reset or closed.
    const cause = error.cause ? ` (${error.cause.code ?? ''} ${error.cause.message ?? ''})` : '';
    const why = String(error).slice(0, 300 - cause.length) + cause;
    seen.errors.push({ began, ended: now(), text, error: why });
  }
}

class OneSession {
  constructor(name, asked) {
    this.name = name;
    this.asked = asked;
    this.flying = new Set();
    this.failed = new Set();
    this.number = 0;
    this.left = plan.calls;
    this.timesOpened = 0;
    this.cancelling = new AbortController();
  }

  // Every attempt counts, so that calls that cannot succeed come to an end.
  goesOn() {
    return !over && !(plan.calls && this.left <= 0);
  }

  async run() {
    while (this.goesOn()) {
      this.began = now();
      try {
        if (!(await this.converse())) seen.reopened += 1;
      } catch (error) {
        failed(this.began, null, error);
        seen.reopened += 1;
        this.left -= 1;
        await rest(REOPEN_AFTER_MS);
      }
    }
    if (this.timesOpened === 1) seen.kept += 1;
  }

  // Opens a session and calls in it; tells whether it lived to the end.
  async converse() {
    const capabilities = this.asked ? { elicitation: {} } : {};
    const client = new Client({ name: 'load', version: '1' }, { capabilities });
    const transport = new StreamableHTTPClientTransport(new URL(plan.url));
    if (this.asked) {
      client.setRequestHandler(ElicitRequestSchema, ({ params }) => this.elicited(params));
      client.onerror = (error) => {
        if (error.message.startsWith('Failed to send response')) this.answerLost(error);
      };
    }
    try {
      await client.connect(transport);
      seen.id_lengths.push(transport.sessionId.length);
      this.timesOpened += 1;
      if (this.timesOpened === 1) waiting -= 1;
      if (this.timesOpened === 1 && waiting === 0) process.stderr.write('{"event": "ready"}\n');
      while (this.goesOn()) {
        this.left -= 1;
        if (!(await this.one(client))) return false;
        await rest(plan.rest_s * 1000);
      }
      await transport.terminateSession();
      return true;
    } finally {
      await client.close();
    }
  }

  // Makes one call; tells whether the session is still known.
  async one(client) {
    const number = this.number++;
    const text = `${this.name}-${number}`;
    const tool = ['echo', 'steps', 'echo', this.asked ? 'ask' : 'echo'][number % 4];
    const began = now();
    this.began = began;
    seen.calls += 1;
    this.flying.add(text);
    const onprogress = ({ message }) => {
      seen.steps += 1;
      if (message !== text) seen.crossed.push([text, 'progress', message]);
    };
    this.cancelling = new AbortController();
    const { signal } = this.cancelling;
    const options = { timeout: WITHIN_MS, signal, ...(tool === 'steps' ? { onprogress } : {}) };
    const args = { text, wait_s: plan.wait_s ?? 0 };
    try {
      const answer = await client.callTool({ name: tool, arguments: args }, undefined, options);
      const said = answer.content[0].text;
      const wanted = tool === 'ask' ? `${text} ${text}/${this.name}` : text;
      if (said === wanted) {
        seen.right += 1;
        seen.texts.push(text);
      } else seen.crossed.push([text, tool, said]);
    } catch (error) {
      failed(began, text, error);
      this.failed.add(text);
      return error.code !== 404;
    } finally {
      this.flying.delete(text);
      seen.longest_s = Math.max(seen.longest_s, now() - began);
    }
    return true;
  }

  answerLost(error) {
    const { cancelling } = this;
    setTimeout(() => cancelling.abort(error), CANCEL_AFTER_MS);
  }

  elicited({ message }) {
    seen.questions += 1;
    // A call whose connection broke goes on at its server, which may still ask.
    if (this.failed.has(message)) seen.late += 1;
    else if (!this.flying.has(message)) seen.crossed.push([[...this.flying], 'question', message]);
    return { action: 'accept', content: { answer: `${message}/${this.name}` } };
  }
}

const kinds = [...Array(plan.plain).fill(false), ...Array(plan.asked).fill(true)];
const sessions = kinds.map((asked, number) => new OneSession(`${plan.marker}${number}`, asked));
const running = Promise.all(sessions.map((session) => session.run()));
if (plan.calls === 0) {
  await once(process.stdin, 'data');
  over = true;
}
await running;
await new Promise((written) => process.stdout.write(`${JSON.stringify(seen)}\n`, written));
process.exit(0);
