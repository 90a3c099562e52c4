// away.mjs URL FOLDER UPSTREAM PORT HOW SECONDS PASSWORD --shots DIR: the machine of an open code-server is gone for a while: the same page goes on
// with the same shell and the same reconnection tokens.
//
// URL: code-server with the folder and our ticket. FOLDER: that folder on this machine, with a README.md. UPSTREAM: code-server itself; the gateway
// reaches it by PORT, where this script passes on or does not. HOW: `cut` (connections are reset, new ones too) or `hold` (they stay, and nothing
// passes, as with a machine that is frozen). SECONDS: for how long. PASSWORD: code-server's own.

import { setTimeout as pause } from 'node:timers/promises'
import { assert, test, until } from '../browser/support/browser.mjs'
import { Terminal, enter } from '../browser/support/code-server.mjs'
import { through } from '../browser/support/wire.mjs'

// VS Code tries again after 30 s at most.
const COMES_BACK = 90_000

test(['URL', 'FOLDER', 'UPSTREAM', 'PORT', 'HOW', 'SECONDS', 'PASSWORD'], async (given) => {
  const [, , upstream, port] = given.positionals
  const cable = await through(new URL(upstream), Number(port))
  await goesAway(cable, given).finally(cable.close)
}, { gone: true })

async function goesAway(cable, { page, url, steps, positionals }) {
  const step = steps.step.bind(steps)
  const [, folder, , , how, seconds, password] = positionals
  const terminal = new Terminal(page, folder)
  const sockets = []
  page.on('websocket', (socket) => sockets.push(new URL(socket.url()).searchParams))
  const tokens = () => [...new Set(sockets.map((query) => query.get('reconnectionToken')))].sort()
  let shell, stamp, known, before

  await step('its terminal works', async () => {
    await enter(page, url, password)
    shell = await terminal.open()
    stamp = await page.evaluate(() => (window.stamp = Math.random()))
    // One for the window, one for its extensions, which may come behind the terminal.
    known = await until('two connections', () => tokens().length === 2 && String(tokens()), () => String(tokens()))
    return `shell ${shell}`
  })

  await step(`its machine is gone for ${seconds} s (${how})`, async () => {
    before = sockets.length
    cable[how]()
    await pause(seconds * 1000)
    assert(sockets.length > before, 'it did not try to connect')
    return `it tried to connect ${sockets.length - before} times`
  }, 'gone')

  await step('the same page goes on with the same shell and reconnection tokens', async () => {
    const began = Date.now()
    cable.mend()
    assert((await terminal.answers('back', COMES_BACK)) === shell, 'it has another shell')
    assert((await page.evaluate(() => window.stamp)) === stamp, 'the page was loaded again')
    assert(String(tokens()) === known && sockets.slice(before).every((query) => query.get('reconnection') === 'true'), `tokens: ${known}; then ${tokens()}`)
    return `${((Date.now() - began) / 1000).toFixed(1)} s later`
  }, 'back')
}
