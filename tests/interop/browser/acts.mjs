// What pages do; each function runs in a page and knows nothing but what it is given.

/** Uses a session as a client in a page would: all of the protocol, by fetch. */
export async function session({ url, token }) {
  const said = {};
  const base = { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' };
  if (token) base.Authorization = `Bearer ${token}`;
  const post = (message, more = {}) =>
    fetch(url, {
      method: 'POST',
      headers: { ...base, ...more },
      body: JSON.stringify({ jsonrpc: '2.0', ...message }),
    });
  const clientInfo = { name: 'page', version: '1' };
  const introduction = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo };
  let answer = await post({ id: 0, method: 'initialize', params: introduction });
  said.server = (await answer.json()).result.serverInfo.name;
  const id = answer.headers.get('Mcp-Session-Id');
  said.session = id === null ? 0 : id.length;
  const named = { 'Mcp-Session-Id': id, 'Mcp-Protocol-Version': '2025-11-25' };
  said.told = (await post({ method: 'notifications/initialized' }, named)).status;

  said.sums = [];
  for (let a = 0; a < 5; a++) {
    const params = { name: 'add', arguments: { a, b: 1 } };
    answer = await post({ id: `c${a}`, method: 'tools/call', params }, named);
    said.sums.push((await answer.json()).result.structuredContent.sum);
  }

  const slow = {
    name: 'countdown',
    arguments: { seconds: 0.2 },
    _meta: { progressToken: 'p' },
  };
  answer = await post({ id: 's', method: 'tools/call', params: slow }, named);
  said.streamed = answer.headers.get('Content-Type');
  const lines = (await answer.text()).split(/\r?\n/);
  const datas = lines.filter((line) => line.startsWith('data:') && line.slice(5).trim());
  said.progressed = datas.some((line) => line.includes('notifications/progress'));
  said.answered = JSON.parse(datas.at(-1).slice(5)).id;
  const last = lines.filter((line) => line.startsWith('id:')).map((line) => line.slice(3).trim())[0];

  const leaving = new AbortController();
  const get = { method: 'GET', signal: leaving.signal };
  answer = await fetch(url, { ...get, headers: { ...base, ...named } });
  said.listened = [answer.status, answer.headers.get('Content-Type')];
  leaving.abort();
  const resumed = await fetch(url, {
    headers: { ...base, ...named, ...(last && { 'Last-Event-ID': last }) },
  });
  said.resumed = resumed.status;
  await resumed.body?.cancel();

  const unknown = await post({ id: 'u', method: 'ping' }, { ...named, 'Mcp-Session-Id': 'none' });
  said.unknown = [unknown.status, (await unknown.json()).error.message];
  said.deleted = (await fetch(url, { method: 'DELETE', headers: { ...base, ...named } })).status;
  return said;
}

/** A call of 2026-07-28, whose name and arguments stand in headers too. */
export async function modern({ url }) {
  const meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientInfo': { name: 'page', version: '1' },
    'io.modelcontextprotocol/clientCapabilities': {},
  };
  const params = { name: 'add', arguments: { a: 1, b: 1 }, _meta: meta };
  const answer = await fetch(url, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      Accept: 'application/json, text/event-stream',
      'Mcp-Protocol-Version': '2026-07-28',
      'Mcp-Method': 'tools/call',
      'Mcp-Name': 'add',
      'Mcp-Param-Region': 'eu',
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
  });
  return { status: answer.status, sum: (await answer.json()).result?.structuredContent?.sum };
}

/** What a client without a token can read of the refusal. */
export async function refused({ url }) {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
  });
  return { status: answer.status, challenge: answer.headers.get('WWW-Authenticate') };
}

/** Everything that a page can try against a server that does not want it, by name. */
export async function attack({ url, root, marker }) {
  const body = JSON.stringify({ jsonrpc: '2.0', id: marker, method: 'tools/list', params: {} });
  const said = {};
  const within = (promise) =>
    Promise.race([promise, new Promise((done) => setTimeout(() => done('nothing'), 3000))]);
  const attempt = async (name, act) => {
    try {
      said[name] = await within(act());
    } catch (error) {
      said[name] = error.name;
    }
  };
  const fetched = async (target, options) => {
    const answer = await fetch(target, options);
    return answer.type === 'opaque' ? 'opaque' : [answer.status, (await answer.text()).length];
  };
  const loaded = (tag, attributes) =>
    new Promise((done) => {
      const element = document.createElement(tag);
      element.onload = () => done('loaded');
      element.onerror = () => done('error');
      Object.assign(element, attributes);
      document.body.append(element);
    });
  const json = { 'Content-Type': 'application/json' };
  await attempt('json', () => fetched(url, { method: 'POST', headers: json, body }));
  await attempt('text', () => fetched(url, { method: 'POST', body }));
  const blind = { method: 'POST', mode: 'no-cors', body };
  await attempt('blind', () => fetched(url, blind));
  const typed = { ...blind, body: new Blob([body], { type: 'application/json' }) };
  await attempt('typed', () => fetched(url, typed));
  await attempt('kept', () => fetched(url, { ...blind, keepalive: true }));
  await attempt('get', () => fetched(`${root}/metrics`, {}));
  await attempt('blindGet', () => fetched(`${root}/sse`, { mode: 'no-cors' }));
  await attempt('delete', () => fetched(url, { method: 'DELETE' }));
  await attempt('beacon', async () => navigator.sendBeacon(url, body));
  await attempt('form', () => {
    const form = document.createElement('form');
    const field = document.createElement('input');
    // As text/plain the field's name and value are the body, with nothing but a "=" in between.
    [field.name, field.value] = [body.slice(0, -1) + ',"x":"', '"}'];
    form.append(field);
    Object.assign(form, { method: 'POST', action: url, enctype: 'text/plain', target: 'there' });
    const frame = loaded('iframe', { name: 'there' });
    document.body.append(form);
    form.submit();
    return frame;
  });
  await attempt('image', () => loaded('img', { src: `${root}/sse` }));
  await attempt('script', () => loaded('script', { src: `${root}/metrics` }));
  await attempt('frame', () => loaded('iframe', { src: `${root}/sse` }));
  for (const path of ['/sse', '/mcp']) {
    await attempt(`events ${path}`, () =>
      new Promise((done) => {
        const events = new EventSource(root + path);
        events.onopen = () => done('open');
        events.onerror = () => (events.close(), done('error'));
      }),
    );
  }
  await attempt('socket', () =>
    new Promise((done) => {
      const socket = new WebSocket(url.replace('http', 'ws'));
      socket.onopen = () => done('open');
      socket.onerror = () => done('error');
    }),
  );
  return said;
}
