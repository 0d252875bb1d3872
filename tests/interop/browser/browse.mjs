// `browse.mjs CHROMIUM PROFILE`: opens pages in a real browser and lets each try something there.
//
// One JSON object on stdin: { resolve: "--host-resolver-rules", visits: [{ page, stage, act, given }] },
// one on stdout: a list of what each act returned.
// `stage` makes the browser take an empty page at that address without asking anybody: where a name
// leads to the bridge itself, no server could serve one.

import { chromium } from 'playwright-core';
import * as acts from './acts.mjs';

const [executablePath, profile] = process.argv.slice(2);
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { resolve, visits } = JSON.parse(Buffer.concat(chunks).toString());

const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    // What a browser of today keeps from the machine's own network by itself, one of yesterday does
    // not; and a test must not pass because nothing was asked.
    '--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests',
    `--host-resolver-rules=${resolve}`,
  ],
});
const results = [];
try {
  for (const { page: address, stage, act, given } of visits) {
    const page = await browser.newPage();
    if (stage) {
      const body = '<!doctype html><title>page</title>';
      await page.route(address, (route) => route.fulfill({ contentType: 'text/html', body }));
    }
    await page.goto(address);
    results.push(await page.evaluate(acts[act], given));
    await page.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(results));
