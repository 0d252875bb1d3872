// The scenario `features`, told in tests/support/peers/features.py: everything a legacy client may
// do, in two sessions at once, each under a marker of its own.

import {
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { createHash } from 'node:crypto';

const MARKERS = ['left', 'right'];
const BIG = 2_000_000;
const ARRIVAL_BOUND_MS = 10_000;

// What one session was told outside of answers, and a way to wait for it.
function listen(client) {
  const heard = { logs: [], updates: [], onMore: () => {} };
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => {
    heard.logs.push(params.data);
    heard.onMore();
  });
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => {
    heard.updates.push(params.uri);
    heard.onMore();
  });
  heard.holding = (kind, wanted) =>
    new Promise((resolve) => {
      const bound = setTimeout(resolve, ARRIVAL_BOUND_MS);
      heard.onMore = () => {
        if (!heard[kind].includes(wanted)) return;
        clearTimeout(bound);
        resolve();
      };
      heard.onMore();
    });
  return heard;
}

// The length and SHA-256 of the text in a tool's answer; an error as it is.
function digest(answer) {
  if ('error' in answer) return answer;
  const bytes = Buffer.from(answer.result.content[0].text);
  return [bytes.length, createHash('sha256').update(bytes).digest('hex')];
}

async function visitPlain(client, { attempt, call }, seen) {
  seen.ping = await attempt(client.ping());
  seen.tools = (await client.listTools()).tools;
  seen.greeting = await attempt(client.readResource({ uri: 'peer://greeting' }));
  seen.prompt = await attempt(client.getPrompt({ name: 'summarize', arguments: { topic: 'tea' } }));
  const ref = { type: 'ref/prompt', name: 'summarize' };
  seen.completion = await attempt(client.complete({ ref, argument: { name: 'topic', value: 'be' } }));
  seen.progress = [];
  seen.countdown = await call(client, 'countdown', { seconds: 0.2, steps: 4 }, (step) =>
    seen.progress.push([step.progress, step.total ?? null]),
  );
}

async function visitLogs(client, heard, { attempt, call }, marker, declared, seen) {
  for (const level of ['error', 'info']) {
    seen[`level ${level}`] = await attempt(client.setLoggingLevel(level));
    seen[`log ${level}`] = await call(client, 'log', { message: `${marker} ${level}` });
  }
  // On a shared child with two calls in flight it is nobody's, and not worth the wait.
  if (declared) await heard.holding('logs', `${marker} info`);
}

// Hears of one item, then of another only: had the first been told again, it came before.
async function visitItems(client, heard, { attempt, call }, marker, seen) {
  const [first, second] = [`${marker}-first`, `${marker}-second`];
  const uriOf = (name) => ({ uri: `peer://item/${name}` });
  seen.subscribe = await attempt(client.subscribeResource(uriOf(first)));
  seen.change = await call(client, 'change', { name: first, text: 'new' });
  await heard.holding('updates', uriOf(first).uri);
  seen.changed = await attempt(client.readResource(uriOf(first)));
  seen.unsubscribe = await attempt(client.unsubscribeResource(uriOf(first)));
  await attempt(client.subscribeResource(uriOf(second)));
  await call(client, 'change', { name: first, text: 'newer' });
  await call(client, 'change', { name: second, text: 'new' });
  await heard.holding('updates', uriOf(second).uri);
}

async function abandon(client, marker) {
  const cancelling = new AbortController();
  const options = { signal: cancelling.signal, onprogress: () => cancelling.abort('enough') };
  await client
    .callTool({ name: 'wait', arguments: { label: marker } }, undefined, options)
    .catch(() => {});
}

async function visitBig(client, { call }, marker, declared, seen) {
  const sent = marker + 'y'.repeat(BIG);
  seen['big echo'] = digest(await call(client, 'echo', { text: sent }));
  // After progress the answer can only be an event of a stream.
  const steps = (seen['big progress'] = []);
  seen['big event'] = digest(
    await call(client, 'big', { size: BIG }, ({ progress }) => steps.push(progress)),
  );
  if (declared) seen['big sample'] = digest(await call(client, 'sample', { prompt: sent }));
}

async function visit({ client, heard }, tools, marker, declared) {
  const { call } = tools;
  const seen = {};
  await visitPlain(client, tools, seen);
  seen.ask = await call(client, 'ask', { question: marker });
  seen.sample = await call(client, 'sample', { prompt: marker });
  seen.roots = await call(client, 'roots', {});
  seen.ping_client = await call(client, 'ping_client', {});
  await visitLogs(client, heard, tools, marker, declared, seen);
  await visitItems(client, heard, tools, marker, seen);
  await abandon(client, marker);
  seen.ended = await call(client, 'ended', { label: marker });
  await visitBig(client, tools, marker, declared, seen);
  seen.last = await call(client, 'echo', { text: `${marker} is done` });
  return seen;
}

// Visits in both sessions; what each saw, by marker.
export async function features(tools, { declare }) {
  const talks = [];
  for (const marker of MARKERS) {
    const talk = await tools.connect();
    talks.push({ ...talk, marker, heard: listen(talk.client) });
  }
  const all = await Promise.all(talks.map((talk) => visit(talk, tools, talk.marker, declare)));
  const seen = Object.fromEntries(
    talks.map(({ marker, heard: { logs, updates } }, place) => [
      marker,
      { ...all[place], logs, updates },
    ]),
  );
  for (const talk of talks) await tools.leave(talk);
  return seen;
}
