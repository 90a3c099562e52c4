// code-server.mjs URL FOLDER --shots DIR [--plain]: a real IDE through the gateway: open, edit and save, run a command.
//
// FOLDER: the repository's folder, on this machine; it holds a README.md. What the IDE did is looked up there.
// --plain: URL is code-server itself, without gateway and TLS; it gets the folder from us.

import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { assert, assertSecure, test, until } from './support/browser.mjs'

const FILE = 'README.md'
const FIRST_START = 90_000
const read = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : '')

test(['URL', 'FOLDER'], async ({ page, url, wire, steps, plain, positionals }) => {
  const step = steps.step.bind(steps)
  const folder = positionals[1]
  const file = join(folder, FILE)
  const files = page.locator('.explorer-folders-view .monaco-list-row')
  const entry = files.filter({ hasText: FILE })
  const sockets = []
  page.on('websocket', (socket) => sockets.push(socket))
  // It asks only where workspace trust is on; whenever it comes, it covers everything.
  const trust = page.locator('.monaco-dialog-box a.monaco-button', { hasText: 'Yes, I trust the authors' })
  await page.addLocatorHandler(trust, (button) => button.click())
  if (plain) url.searchParams.set('folder', folder)

  let first
  await step('the link opens the IDE', async () => {
    first = await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    assert(first.status() === 200, `the page answers ${first.status()}`)
  })
  if (!plain) {
    await step('HTTP/2 and a valid certificate', () => assertSecure(page, first))
    await step('the ticket is gone from the address', () => {
      const { searchParams } = new URL(page.url())
      assert(![...searchParams.keys()].some((key) => /ticket|token/.test(key)), `the address is ${page.url()}`)
    })
  }

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

  const said = join(folder, 'said.txt')
  await step('a command runs in its terminal', async () => {
    rmSync(said, { force: true })
    await page.keyboard.press('Control+Backquote')
    const screen = page.locator('.terminal-wrapper .xterm-screen')
    await screen.waitFor()
    // Before the shell is there, what is typed goes elsewhere.
    await until('a prompt in the terminal', async () => {
      await screen.click()
      return page.evaluate(() => {
        const focused = document.activeElement?.classList.contains('xterm-helper-textarea')
        return focused && document.querySelectorAll('.terminal-tabs-entry, .single-terminal-tab').length > 0
      })
    })
    await page.keyboard.type('echo term-$((6*7)) > said.txt; cat said.txt\n')
    await until(`"term-42" in ${said}`, () => read(said) === 'term-42\n', () => read(said))
    // The terminal draws on a canvas; the list of files says it in words.
    await files.filter({ hasText: 'said.txt' }).waitFor()
  }, 'terminal')

  await step('its git shows the file as modified', () => entry.locator('[aria-label*="Modified"]').first().waitFor(), 'git')
})
