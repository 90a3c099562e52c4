// code-server.mjs URL RECEIVED FOLDER PASSWORD --shots DIR: code-server on a path of a host: it works, and stays under the path.
//
// URL: the path itself, without a slash at its end, with the folder and our ticket. RECEIVED: what reaches code-server (recorder.py). FOLDER: what it
// opens, on this machine; it holds a README.md. PASSWORD: code-server's own.

import { assert, assertSecure, test } from '../browser/support/browser.mjs'
import { Terminal, giveThePassword } from '../browser/support/code-server.mjs'
import { Received } from './received.mjs'

const FIRST_START = 90_000

test(['URL', 'RECEIVED', 'FOLDER', 'PASSWORD'], async ({ page, context, url, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const received = new Received(positionals[1])
  const folder = positionals[2]
  const prefix = url.pathname
  const under = (path) => path === prefix || path.startsWith(`${prefix}/`)
  const asked = []
  const ask = (href) => new URL(href).hostname === url.hostname && asked.push(new URL(href).pathname)
  context.on('request', (request) => ask(request.url()))
  page.on('websocket', (socket) => ask(socket.url()))
  const files = page.locator('.explorer-folders-view .monaco-list-row')

  await step("the link opens code-server's own login, under the path", async () => {
    const first = await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    assert(first.status() === 200, `the page answers ${first.status()}`)
    const { pathname, searchParams } = new URL(page.url())
    assert(pathname === `${prefix}/login` && !searchParams.has('gitspace_token'), `the address is ${page.url()}`)
    return assertSecure(page, first)
  }, 'login')

  await step('its password opens the workbench', async () => {
    await giveThePassword(page, positionals[3])
    await page.waitForURL((there) => there.pathname === `${prefix}/`)
    await page.waitForSelector('.monaco-workbench', { timeout: FIRST_START })
    await files.filter({ hasText: 'README.md' }).waitFor({ timeout: FIRST_START })
  }, 'workbench')

  await step('its terminal echoes', async () => {
    const terminal = new Terminal(page, folder)
    await terminal.open()
    await terminal.says('said')
    await files.filter({ hasText: 'said.txt' }).waitFor()
  }, 'terminal')

  await step('a webview shows the preview of a file', async () => {
    await files.filter({ hasText: 'README.md' }).click()
    await page.locator('.editor-instance .view-lines').click()
    await page.keyboard.press('Control+Shift+v')
    const inner = page.frameLocator('iframe.webview.ready').frameLocator('iframe#active-frame')
    await inner.locator('h1', { hasText: 'A heading of the preview' }).waitFor({ timeout: FIRST_START })
  }, 'preview')

  await step('every request was under the path', () => {
    const beside = [...new Set(asked.filter((path) => !under(path)))]
    assert(beside.length === 0, `beside it: ${beside}`)
    return `${asked.length} requests`
  })

  await step('cookies and service workers are for nothing beside it', async () => {
    const cookies = (await context.cookies()).filter((cookie) => cookie.name !== '__Host-gitspace')
    const wide = cookies.filter((cookie) => !under(cookie.path)).map((cookie) => `${cookie.name} ${cookie.path}`)
    assert(wide.length === 0, `cookies: ${wide}`)
    assert(cookies.some(({ name }) => name.startsWith('code-server-session')), 'there is no session of code-server')
    const workers = await page.evaluate(async () => {
      const registered = await navigator.serviceWorker.getRegistrations()
      return Promise.all(registered.map(async ({ scope, active }) => {
        const script = await fetch(active.scriptURL)
        return { scope, allowed: script.headers.get('service-worker-allowed') }
      }))
    })
    const scopes = workers.map(({ scope }) => scope)
    const far = scopes.filter((scope) => !under(new URL(scope).pathname))
    assert(far.length === 0, `service workers: ${far}`)
    // code-server itself says `/`.
    const allowed = workers.map((worker) => worker.allowed).filter(Boolean)
    assert(allowed.length > 0 && allowed.every((path) => path === `${prefix}/`), `they may have: ${allowed}`)
    return `cookies: ${cookies.map(({ name, path }) => `${name} ${path}`).join(', ')}; service workers: ${scopes.join(', ')}`
  })

  await step('code-server saw its own paths, was told the prefix, and got nothing of ours', () => {
    const heads = received.heads()
    assert(heads.every((head) => !head.split(' ')[1].startsWith(prefix)), 'the prefix was not taken off')
    assert(heads.every((head) => head.toLowerCase().includes(`\r\nx-forwarded-prefix: ${prefix}\r\n`)), 'it was not told the prefix')
    return received.assertNothingOfOurs(url.searchParams.get('gitspace_token'))
  })
})
