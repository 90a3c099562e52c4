// gateways.mjs URL FOLDER ASKED PASSWORD --shots DIR: an open code-server does not notice upgrades of its gateway, and goes on without being loaded again
// when the gateway is killed.
//
// URL: code-server with the folder and our ticket. FOLDER: that folder on this machine, with a README.md. ASKED: a folder where a file is made of what is
// to happen to the gateway, `upgrade` or `kill`; whoever does it takes the file away. PASSWORD: code-server's own.

import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { assert, test, until } from '../browser/support/browser.mjs'
import { Terminal, enter } from '../browser/support/code-server.mjs'

test(['URL', 'FOLDER', 'ASKED', 'PASSWORD'], async ({ page, url, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const [, folder, asked, password] = positionals
  const closed = []
  page.on('websocket', (socket) => socket.on('close', () => closed.push(socket.url())))
  const happens = async (what) => {
    const began = Date.now()
    writeFileSync(join(asked, what), '')
    await until(`the ${what}`, () => !existsSync(join(asked, what)))
    return `${((Date.now() - began) / 1000).toFixed(1)} s`
  }
  const terminal = new Terminal(page, folder)
  let shell, stamp

  await step('its terminal works', async () => {
    await enter(page, url, password)
    shell = await terminal.open()
    return `shell ${shell}`
  })

  await step('ten upgrades of the gateway close none of its WebSockets', async () => {
    stamp = await page.evaluate(() => (window.stamp = Math.random()))
    closed.length = 0
    const took = await happens('upgrade')
    assert((await terminal.says('upgraded')) === shell, 'it has another shell')
    assert(closed.length === 0, `closed: ${closed}`)
    return took
  })

  await step('the gateway is killed, and another one is there', () => happens('kill'), 'killed')

  await step('the same page goes on with the same shell', async () => {
    const began = Date.now()
    // What is typed while it is not connected may be lost: it is typed again.
    assert((await terminal.answers('after', 90_000)) === shell, 'it has another shell')
    assert((await page.evaluate(() => window.stamp)) === stamp, 'the page was loaded again')
    return `${((Date.now() - began) / 1000).toFixed(1)} s later`
  }, 'back')
})
