// A client made with the TypeScript SDK that logs in: `login.mjs VERSION URL`, where VERSION is 1 or
// 2. What the person at a browser does, and the one JSON line, are those of
// tests/support/peers/consent.py.

const [version, url] = process.argv.slice(2);
const { Client, StreamableHTTPClientTransport, UnauthorizedError } =
  version === '1'
    ? {
        ...(await import('@modelcontextprotocol/sdk/client/index.js')),
        ...(await import('@modelcontextprotocol/sdk/client/streamableHttp.js')),
        ...(await import('@modelcontextprotocol/sdk/client/auth.js')),
      }
    : await import('@modelcontextprotocol/client');

setTimeout(() => {
  console.error('gave up');
  process.exit(1);
}, 60_000).unref();

const callback = 'http://127.0.0.1:3030/callback';
const asked = [];
let code;
let discovered;
let registered;
let tokens;
let verifier;
const provider = {
  redirectUrl: callback,
  clientMetadata: {
    client_name: 'peer',
    redirect_uris: [callback],
    // SDK 1.x answers a call for more scopes with its refresh token, which gets it the old ones.
    grant_types: version === '1' ? ['authorization_code'] : ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  },
  discoveryState: () => discovered,
  saveDiscoveryState: (found) => (discovered = found),
  clientInformation: () => registered,
  saveClientInformation: (information) => (registered = information),
  tokens: () => tokens,
  saveTokens: (given) => (tokens = given),
  codeVerifier: () => verifier,
  saveCodeVerifier: (made) => (verifier = made),
  async redirectToAuthorization(authorization) {
    const wanted = authorization.searchParams;
    const names = ['scope', 'resource', 'code_challenge_method'];
    asked.push(Object.fromEntries(names.map((name) => [name, wanted.get(name) ?? ''])));
    const answer = await fetch(authorization, { redirect: 'manual' });
    code = new URL(answer.headers.get('location')).searchParams.get('code');
  },
};

const open = () => new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
let transport = open();
// The SDK ends what it was doing when it has sent somebody to log in; then it is to be done again.
async function loggedIn(act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    await transport.finishAuth(code);
    return act();
  }
}

let client;
await loggedIn(() => {
  client = new Client({ name: 'peer', version: '1' });
  transport = open();
  return client.connect(transport);
});
const { tools } = await loggedIn(() => client.listTools());
const { content } = await loggedIn(() =>
  client.callTool({ name: 'echo', arguments: { text: 'logged in' } }),
);
const line = { asked, tools: tools.map(({ name }) => name), text: content[0].text };
await new Promise((written) => process.stdout.write(`${JSON.stringify(line)}\n`, written));
await client.close();
process.exit(0);
