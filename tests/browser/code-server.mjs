// code-server.mjs URL FOLDER GITSPACE TOKEN --shots DIR: a real IDE through the gateway: open, edit and save, run a command; left open while its
// gitspace is stopped.
//
// FOLDER: the repository's folder, on this machine; it holds a README.md. What the IDE did is looked up there. GITSPACE: its URL at the control plane.
// TOKEN: a file with its owner's token for that.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { assert, assertSecure, test, until } from './support/browser.mjs'
import { Terminal } from './support/code-server.mjs'

const FILE = 'README.md'
const FIRST_START = 90_000
const read = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : '')

test(['URL', 'FOLDER', 'GITSPACE', 'TOKEN'], async ({ page, url, wire, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const [, folder, gitspace, token] = positionals
  const file = join(folder, FILE)
  const files = page.locator('.explorer-folders-view .monaco-list-row')
  const entry = files.filter({ hasText: FILE })
  const sockets = []
  page.on('websocket', (socket) => sockets.push(socket))
  // It asks only where workspace trust is on; whenever it comes, it covers everything.
  const trust = page.locator('.monaco-dialog-box a.monaco-button', { hasText: 'Yes, I trust the authors' })
  await page.addLocatorHandler(trust, (button) => button.click())

  let first
  await step('the link opens the IDE', async () => {
    first = await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    assert(first.status() === 200, `the page answers ${first.status()}`)
  })
  await step('HTTP/2 and a valid certificate', () => assertSecure(page, first))
  await step('the ticket is gone from the address', () => {
    const { searchParams } = new URL(page.url())
    assert(![...searchParams.keys()].some((key) => /ticket|token/.test(key)), `the address is ${page.url()}`)
  })

  await step('the workbench shows the repository', async () => {
    await page.waitForSelector('.monaco-workbench', { timeout: FIRST_START })
    await entry.waitFor({ timeout: FIRST_START })
    assert(sockets.length > 0, 'it opened no WebSocket')
    return `${sockets.length} WebSockets, ${wire.opened()} TCP connections`
  }, 'workbench')

  const written = `written in the browser at ${new Date().toISOString()}`
  await step('a file is edited and saved', async () => {
    await entry.click()
    await page.locator('.editor-instance .view-lines').click()
    await page.keyboard.press('Control+End')
    await page.keyboard.type(`\n${written}\n`)
    await page.keyboard.press('Control+s')
    await until(`"${written}" in ${file}`, () => read(file).includes(written), () => read(file))
  }, 'saved')

  await step('a command runs in its terminal', async () => {
    const terminal = new Terminal(page, folder)
    await terminal.open()
    await terminal.says('said')
    await files.filter({ hasText: 'said.txt' }).waitFor()
  }, 'terminal')

  await step('its git shows the file as modified', () => entry.locator('[aria-label*="Modified"]').first().waitFor(), 'git')

  const plane = async (method, path = '') => {
    const answer = await fetch(gitspace + path, { method, headers: { authorization: `Bearer ${readFileSync(token, 'utf8').trim()}` } })
    assert(answer.ok, `${method} ${path}: ${answer.status}`)
    return answer.json()
  }
  const state = async () => (await plane('GET')).state
  await step('it is left open while its gitspace is stopped: it tries to connect again, which starts nothing', async () => {
    await plane('POST', '/stop')
    await until('it is stopped', async () => (await state()) === 'stopped')
    const before = sockets.length
    await until('three tries', async () => {
      const now = await state()
      assert(now === 'stopped', `it is ${now} after ${sockets.length - before} tries`)
      return sockets.length >= before + 3
    })
    return `${sockets.length - before} tries`
  }, 'stopped')

  await step('opening it starts it', async () => {
    await page.goto(page.url(), { waitUntil: 'domcontentloaded' })
    await entry.waitFor({ timeout: FIRST_START })
    assert((await state()) === 'running', 'it does not run')
  }, 'started')
}, { gone: true })
