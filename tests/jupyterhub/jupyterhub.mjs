// jupyterhub.mjs URL IDLE --shots DIR: two people at a JupyterHub behind the gateway, each in a browser of its own.
//
// URL: JupyterHub's. IDLE: after so many seconds the culler takes an idle server. PASSWORD comes by the environment. Asks run.py for a
// restart of the gateway by a file `restart` in its folder, and waits for `restarted`.

import { existsSync, writeFileSync } from 'node:fs'
import { assert, assertSecure, test, until } from '../browser/support/browser.mjs'

const FIRST_START = 90_000
const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds))

test(['URL', 'IDLE'], async ({ page, context, url, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const idle = Number(positionals[1])
  const [ada, bob] = [page, await (await context.browser().newContext({ viewport: { width: 1100, height: 680 } })).newPage()]
  bob.setDefaultTimeout(30_000)
  const sockets = []
  for (const person of [ada, bob]) person.on('websocket', (socket) => sockets.push(decodeURIComponent(new URL(socket.url()).pathname)))

  // By the page that is open, as scripts of it would. Where no server is, JupyterHub answers: 424 to whose it was, 404 to others.
  const status = (person, path) => person.evaluate((path) => fetch(path).then((answer) => answer.status), path)

  const connects = (person, path) =>
    person.evaluate((path) => new Promise((done) => Object.assign(new WebSocket(path), { onopen: () => done(true), onerror: () => done(false) })), path)

  async function logIn(person, name) {
    const first = await person.goto(url.href, { waitUntil: 'domcontentloaded' })
    assert(first.status() === 200, `the page answers ${first.status()}`)
    const how = await assertSecure(person, first)
    await person.locator('#username_input').fill(name)
    await person.locator('#password_input').fill(process.env.PASSWORD)
    await person.locator('#login_submit').click()
    return how
  }

  // JupyterHub starts the server, shows how far it is, and goes on to the notebook.
  const opened = (person) => person.locator('.jp-NotebookPanel .jp-CodeCell').first().waitFor({ timeout: FIRST_START })

  async function run(person, code, output) {
    const shown = person.locator('.jp-OutputArea-output', { hasText: new RegExp(`^${output}\\s*$`) }).first()
    await person.locator('.jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status="idle"]').first().waitFor({ timeout: FIRST_START })
    // It shows an idle kernel before it is connected to it, and forgets what is run until then.
    await until(`the output ${output}`, async () => {
      await person.locator('.jp-NotebookPanel .jp-CodeCell .cm-content').first().click()
      await person.keyboard.press('Control+a')
      await person.keyboard.type(code)
      await person.keyboard.press('Control+Enter')
      return shown.waitFor({ timeout: 3000 }).then(() => true, () => false)
    })
  }

  // What is run in the first minute of a kernel's WebSocket may be its page's doing (docs/activity.md); what is saved is a person's.
  const save = (person) => person.keyboard.press('Control+s')
  async function work(round) {
    await run(bob, `print(${round})`, `${round}`)
    await save(bob)
    await pause(1)
  }

  await step('ada logs in', () => logIn(ada, 'ada'))
  await step('bob logs in, whose name has an @', () => logIn(bob, 'bob@example.test'))
  await step('their servers start', () => Promise.all([opened(ada), opened(bob)]), 'notebook')
  await step('they are on paths of their own', () => {
    assert(ada.url().startsWith(`${url.origin}/user/ada/lab`), ada.url())
    assert(bob.url().startsWith(`${url.origin}/user/bob@example.test/lab`), bob.url())
  })
  let bobs
  await step('each runs a cell', async () => {
    await run(ada, 'print(6*7)', '42')
    await save(ada)
    await run(bob, 'print(6*8)', '48')
    const kernels = (user) => sockets.filter((path) => path.startsWith(`/user/${user}/api/kernels/`) && path.endsWith('/channels'))
    bobs = kernels('bob@example.test').at(-1)
    assert(bobs && kernels('ada').length > 0, `WebSockets: ${sockets}`)
  }, 'cell')
  await step("bob's server does not let ada in", async () => {
    const answer = await status(ada, '/user/bob@example.test/api/contents')
    assert([401, 403].includes(answer), `it answers ${answer}`)
  })
  await step('what is down is said by the page of JupyterHub', async () => {
    const other = await context.newPage()
    const answer = await other.goto(`${url.origin}/dead/x?token=y`, { waitUntil: 'domcontentloaded' })
    assert(answer.status() === 503, `it answers ${answer.status()}`)
    await other.locator('text=Your server appears to be down').waitFor()
    await other.close()
  }, 'down')
  await step('the gateway is restarted', async () => {
    writeFileSync('restart', '')
    await until('the restart', () => existsSync('restarted'))
  })
  await step('bob reaches the same kernel, loads his page again and works on', async () => {
    // JupyterLab may begin a kernel of its own when it is loaded again, so it is asked for before.
    assert(await connects(bob, bobs), `no WebSocket to ${bobs}`)
    await bob.reload({ waitUntil: 'domcontentloaded' })
    await opened(bob)
    await run(bob, 'print(7*7)', '49')
  })
  await step('ada is left alone with her page open, bob works on, and her server is culled', async () => {
    const began = Date.now()
    // Asked by bob's page: nothing of it is ada's.
    const gone = async () => (await status(bob, '/user/ada/api/status')) === 404
    for (let round = 100; !(await gone()); round += 1) {
      assert(Date.now() - began < 1000 * (4 * idle), 'it was not culled')
      await work(round)
    }
    return `after ${((Date.now() - began) / 1000).toFixed(0)} s`
  }, 'culled')
  await step("bob's is not, for as long again", async () => {
    const end = Date.now() + 1000 * (idle + 6)
    for (let round = 500; Date.now() < end; round += 1) {
      await work(round)
    }
  })
  await step('JupyterHub says to ada that her server is not running', async () => {
    const answer = await ada.goto(`${url.origin}/user/ada/lab`, { waitUntil: 'domcontentloaded' })
    assert(answer.status() === 424, `it answers ${answer.status()}`)
    await ada.locator('text=Server not running').first().waitFor()
  }, 'not-running')
})
