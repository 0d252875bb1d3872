// `drive.mjs CHROMIUM PROFILE`: one page of a real browser, driven by a program.
//
// One JSON object a line on stdin: { act, ...words }; one on stdout for each: { value } or { error }.

import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath, profile] = process.argv.slice(2);
const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: { width: 1280, height: 640 },
  colorScheme: 'light',
  acceptDownloads: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await browser.newPage();
const said = [];
page.on('console', (message) => said.push(`${message.type()}: ${message.text()}`));
page.on('pageerror', (error) => said.push(`error: ${error.message}`));
page.on('dialog', (dialog) => {
  said.push(`dialog: ${dialog.message()}`);
  dialog.dismiss();
});
page.setDefaultTimeout(60_000);
const inspector = await page.context().newCDPSession(page);

const acts = {
  open: async ({ url }) => {
    await page.goto('about:blank');
    const response = await page.goto(url);
    return response.headers();
  },
  texts: ({ selector }) => page.locator(selector).allInnerTexts(),
  rows: () =>
    page.locator('#rows .row:not(.head)').evaluateAll((rows) =>
      rows.map((row) => [...row.children].map((each) => each.textContent))),
  // Waits for the page to show it, by looking again with each frame of the browser.
  shows: ({ selector, text }) => page.locator(selector).filter({ hasText: text }).first().waitFor(),
  hides: ({ selector, text }) =>
    page.locator(selector).filter({ hasText: text }).first().waitFor({ state: 'detached' }),
  click: ({ selector, text }) => page.locator(selector).filter({ hasText: text }).last().click(),
  fill: ({ selector, text }) => page.locator(selector).fill(text),
  attribute: ({ selector, name }) => page.locator(selector).getAttribute(name),
  address: () => page.url(),
  said: () => said,
  forget: () => said.splice(0) && null,
  save: async ({ selector, path }) => {
    const [download] = await Promise.all([page.waitForEvent('download'), page.locator(selector).click()]);
    await download.saveAs(path);
  },
  picture: ({ path }) => page.screenshot({ path }),
  // Stops all scripts of the page where they are: it reads nothing until it may go on.
  hold: async () => {
    await inspector.send('Debugger.enable');
    const held = new Promise((done) => inspector.once('Debugger.paused', done));
    await inspector.send('Debugger.pause');
    await held;
  },
  release: async () => {
    await inspector.send('Debugger.resume');
    await inspector.send('Debugger.disable');
  },
  evaluate: ({ text }) => page.evaluate(text),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { act, ...words } = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await acts[act](words)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
await browser.close();
