// dev-server.mjs URL FILE PORT SECONDS --shots DIR: a development server behind a port shows an edit without loading the page again.
//
// URL: the port's host, with our ticket. FILE: the module on this machine that says what is shown. PORT: where on that host the page looks for its
// server; here all of them are the gateway. SECONDS: how long it is left alone between two edits.

import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { assert, assertSecure, test, until } from '../browser/support/browser.mjs'

test(['URL', 'FILE', 'PORT', 'SECONDS'], async ({ page, url, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const [, file, port, seconds] = positionals
  const sockets = []
  page.on('websocket', (socket) => sockets.push(socket.url()))
  const shows = (word) => page.locator('#app', { hasText: new RegExp(`^${word}$`) }).waitFor()
  const edit = async (from, to) => {
    const stamp = await page.evaluate(() => (window.stamp = Math.random()))
    const text = readFileSync(file, 'utf8')
    assert(text.includes(from), `${file} does not say ${from}`)
    writeFileSync(file, text.replace(from, to))
    await shows(to)
    assert((await page.evaluate(() => window.stamp)) === stamp, 'the page was loaded again')
  }

  await step('the page opens', async () => {
    const first = await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    assert(first.status() === 200, `the page answers ${first.status()}`)
    await shows('one')
    return assertSecure(page, first)
  }, 'page')

  await step('its socket goes through the port', async () => {
    await until('a socket', () => sockets.length > 0)
    assert(sockets.every((socket) => socket.startsWith(`wss://${url.hostname}:${port}/`)), `sockets: ${sockets}`)
    return sockets.join(', ')
  })

  const button = page.locator('form button')
  if (await button.count()) {
    // Next.js compares the page's origin with the host that was asked.
    await step('an action of its server runs', async () => {
      await button.click()
      await button.filter({ hasText: 'yes' }).waitFor()
    }, 'action')
  }

  await step('an edit is shown', () => edit('one', 'two'), 'edited')

  await step('and another one after it was left alone', async () => {
    await pause(Number(seconds) * 1000)
    return edit('two', 'three')
  }, 'edited-later')
})
