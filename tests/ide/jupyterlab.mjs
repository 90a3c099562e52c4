// jupyterlab.mjs URL RECEIVED --shots DIR: JupyterLab through the gateway: a cell runs, its own token and cookie pass untouched.
//
// URL: a notebook, with JupyterLab's `token` and our ticket. RECEIVED: what reaches JupyterLab (recorder.py).

import { assert, assertSecure, test, until } from '../browser/support/browser.mjs'
import { Received } from './received.mjs'

const FIRST_START = 90_000

test(['URL', 'RECEIVED'], async ({ page, context, url, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const received = new Received(positionals[1])
  const token = url.searchParams.get('token')
  const ticket = url.searchParams.get('gitspace_token')
  const sockets = []
  page.on('websocket', (socket) => sockets.push(new URL(socket.url()).pathname))
  const sent = []
  context.on('response', async (answer) => sent.push(...(await answer.headersArray().catch(() => [])).filter(({ name }) => name.toLowerCase() === 'set-cookie')))

  await step('the link opens the notebook', async () => {
    const first = await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    assert(first.status() === 200, `the page answers ${first.status()}`)
    assert(!page.url().includes('gitspace_token'), 'the ticket stands in the address')
    const cell = page.locator('.jp-NotebookPanel .jp-CodeCell').first()
    await cell.waitFor({ timeout: FIRST_START })
    return assertSecure(page, first)
  }, 'notebook')

  await step('its own ?token= reached it untouched', () => {
    const asked = `GET ${url.pathname}?token=${token} HTTP/1.1`
    assert(received.heads().some((head) => head.startsWith(asked)), `nobody sent ${asked.replace(token, '…')}`)
  })

  await step('a cell runs', async () => {
    await page.locator('.jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status="idle"]').first().waitFor({ timeout: FIRST_START })
    // It shows an idle kernel before it is connected to it, and forgets what is run until then.
    const output = page.locator('.jp-OutputArea-output', { hasText: /^42\s*$/ }).first()
    await until('the output of the cell', async () => {
      // It asks which kernel is meant, if its own is not there so soon.
      const kernel = page.locator('.jp-Dialog button.jp-mod-accept')
      if (await kernel.isVisible()) await kernel.click()
      await page.locator('.jp-NotebookPanel .jp-CodeCell .cm-content').first().click()
      await page.keyboard.press('Control+Enter')
      return output.waitFor({ timeout: 3000 }).then(() => true, () => false)
    })
    assert(sockets.some((path) => /\/api\/kernels\/.*\/channels$/.test(path)), `its WebSockets: ${sockets}`)
  }, 'cell')

  await step('its _xsrf cookie goes to the browser and back, byte for byte', async () => {
    // Saving is a PUT, which JupyterLab takes only with the cookie's value in a field of its own.
    const saved = () => received.heads().find((head) => head.startsWith('PUT ') && head.includes('/api/contents/a.ipynb'))
    const head = await until('a PUT of the notebook', async () => {
      await page.locator('.jp-NotebookPanel .jp-CodeCell .cm-content').first().click()
      await page.keyboard.press('Control+s')
      await page.waitForTimeout(1000)
      return saved()
    })
    const known = (await context.cookies(url.href)).find((cookie) => cookie.name === '_xsrf')
    assert(known, 'the browser has no _xsrf')
    const field = /^x-xsrftoken: (.*)$/im.exec(head)?.[1].trim()
    assert(sent.some(({ value }) => value.startsWith(`_xsrf=${known.value};`)), 'it is not what the answer set')
    assert(field === known.value, 'the field is not the cookie')
    const back = received.cookies('_xsrf')
    assert(back.length > 0 && back.includes(known.value), 'it did not come back')
    assert(new Set(back).size === 1, `${new Set(back).size} values came back`)
    return `${back.length} requests had it; its path is ${known.path}`
  })

  await step('nothing of ours reached it', () => received.assertNothingOfOurs(ticket))
})
