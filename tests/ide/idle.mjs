// idle.mjs URL KIND GITSPACE ADMIN TOKEN SECONDS PASSWORD FOLDER --shots DIR: an IDE that is left alone counts as idle, and one key as somebody's doing; its
// WebSockets are still there.
//
// URL: the IDE with our ticket. KIND: `code` (code-server, a folder with a README.md) or `lab` (JupyterLab, a notebook). GITSPACE: as the admin API at
// ADMIN names it; TOKEN: a file with its token. SECONDS: for how long it is left alone. PASSWORD: code-server's own.
// FOLDER: the one that it opens, on this machine.

import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { assert, test } from '../browser/support/browser.mjs'
import { Terminal, enter } from '../browser/support/code-server.mjs'

const FIRST_START = 120_000
// In the first minute of a WebSocket nothing counts, so nothing could be told wrongly.
const SETTLES = 65
const SAVED = 150_000

test(['URL', 'KIND', 'GITSPACE', 'ADMIN', 'TOKEN', 'SECONDS', 'PASSWORD', 'FOLDER'], async ({ page, url, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const [, kind, gitspace, admin, token, seconds, password, folder] = positionals
  // What the IDE does over the WebSockets that it has.
  const opened = [], closed = []
  page.on('websocket', (socket) => {
    opened.push(socket.url())
    socket.on('close', () => closed.push(socket.url()))
  })
  const used = async () => {
    const headers = { authorization: `Bearer ${readFileSync(token, 'utf8').trim()}` }
    const answer = await fetch(`${admin}/v1/activity?gitspace=${gitspace}`, { headers })
    assert(answer.status === 200, `the admin API answers ${answer.status}`)
    return (await answer.json())[0]
  }
  const began = Math.floor(Date.now() / 1000)
  const here = kind === 'code' ? '.editor-instance .view-lines' : '.jp-NotebookPanel .jp-CodeCell .cm-content'

  await step('the IDE opens, which counts', async () => {
    if (kind === 'code') {
      const entry = await enter(page, url, password)
      await entry.click()
    } else {
      await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    }
    await page.locator(here).first().click({ timeout: FIRST_START })
    const { why, idle_since: at } = await used()
    assert(at >= began, why)
    return why
  })

  let before, connected
  await step(`${seconds} s later it is idle since then`, async () => {
    await pause(SETTLES * 1000)
    before = await used()
    connected = opened.length
    closed.length = 0
    await pause(seconds * 1000)
    const now = await used()
    // A notebook that is opened is saved by itself once, within two minutes.
    const since = kind === 'lab' ? began + 180 : before.idle_since
    assert(now.idle_since <= since, `${now.why}; before: ${before.why}`)
    assert(now.streams > 0, 'nothing is connected')
    assert(now.passed > now.idle_since, 'nothing passed')
    before = now
    return now.why
  }, 'idle')

  await step('a key counts', async () => {
    await page.keyboard.press('a')
    const wanted = kind === 'code' ? 'typed' : 'saved'
    // A notebook is saved by itself within two minutes; whoever is in a hurry saves it.
    if (kind === 'lab' && seconds < 60) await page.keyboard.press('Control+s')
    const end = Date.now() + SAVED
    for (;;) {
      const now = await used()
      if (now.idle_since > before.idle_since && now.last.some(({ deed }) => deed === wanted)) return now.why
      if (Date.now() > end) throw new Error(now.why)
      await pause(100)
    }
  }, 'used')

  await step('what is run then is run over the WebSockets that were open', async () => {
    if (kind === 'code') await new Terminal(page, folder).open()
    else await runs(page)
    const later = opened.slice(connected)
    assert(closed.length === 0 && later.length === 0, `closed: ${closed}; opened: ${later}`)
    return `${connected} WebSockets`
  }, 'run')
})

// A cell of JupyterLab, whose kernel was connected all along.
async function runs(page) {
  await page.locator('.jp-NotebookPanel .jp-CodeCell .cm-content').first().click()
  await page.keyboard.press('Control+a')
  await page.keyboard.type('print(7*7)')
  await page.keyboard.press('Control+Enter')
  await page.locator('.jp-OutputArea-output', { hasText: /^49\s*$/ }).first().waitFor()
}
