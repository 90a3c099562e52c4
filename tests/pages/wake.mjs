// wake.mjs PROGRAM FOLDER: a gitspace of the demo that is stopped and then opened in Chromium: with script, without, and by what must not
// start it; and a page that waits for a program to listen.
//
// Everything is real: control plane, delegate, runner, agent, gateway. Not here: each page in each way of looking (pages.mjs).

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { assert, launch, until } from '../browser/support/browser.mjs'
import { freePorts } from '../browser/support/ports.mjs'

const [program, folder] = process.argv.slice(2)
const home = join(folder, 'wake-home')
const shots = join(folder, 'shots')
mkdirSync(home, { recursive: true })
const QUERY = '/some/page?a=1&b=%20c'

const running = []
const start = (name, args) => {
  const log = openSync(join(folder, `${name}.log`), 'w')
  const out = openSync(join(folder, `${name}.json`), 'w')
  const child = spawn(program, args, { stdio: ['ignore', out, log] })
  running.push(child)
  return child
}
process.on('exit', () => running.forEach((child) => child.kill('SIGTERM')))

const demo = start('wake-demo', ['demo', '--json'])
let browser
try {
  const ready = await until('the demo', () => {
    assert(demo.exitCode === null, `the demo ended; its log is ${folder}/wake-demo.log`)
    try {
      return JSON.parse(readFileSync(join(folder, 'wake-demo.json'), 'utf8'))
    } catch {
      return undefined
    }
  })
  const token = readFileSync(ready.user_token_file, 'utf8').trim()
  const plane = async (method, path) => {
    const answer = await fetch(`${ready.control_plane}${path}`, { method, headers: { authorization: `Bearer ${token}` } })
    assert(answer.ok, `${method} ${path}: ${answer.status}`)
    return answer.json()
  }
  const path = `/v1/gitspaces/${ready.gitspace}`
  const state = async () => (await plane('GET', path)).state
  const stop = async () => {
    await plane('POST', `${path}/stop`)
    await until('it is stopped', async () => (await state()) === 'stopped')
  }
  const trust = join(dirname(fileURLToPath(import.meta.url)), '../browser/trust-ca.sh')
  assert(spawnSync(trust, [home, ready.ca], { stdio: 'inherit' }).status === 0, 'the CA is not trusted')
  browser = await launch('MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1', home)
  const context = await browser.newContext({ viewport: { width: 900, height: 640 }, colorScheme: 'light' })
  context.setDefaultTimeout(60_000)
  const complaints = []
  context.on('weberror', (error) => complaints.push(error.error().message))
  context.on('console', (message) => {
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) complaints.push(message.text())
  })
  const page = await context.newPage()
  await page.goto(ready.port_url)
  const wanted = new URL(QUERY, page.url()).href
  await page.getByRole('heading', { name: 'Hello' }).waitFor()
  const runs = async (page, words) => {
    await page.getByRole('heading', { name: 'Hello' }).waitFor().catch(async (error) => {
      await page.screenshot({ path: join(shots, 'wake-stuck.png') }).catch(() => undefined)
      throw error
    })
    assert(page.url() === wanted, `${words}: it is at ${page.url()}`)
    console.log(`ok  ${words}`)
  }

  await stop()
  const goOn = await hearsNothing(page)
  const first = await page.goto(wanted, { waitUntil: 'commit' })
  assert(first.status() === 503 && first.headers()['proxy-status'].includes('gitspace-starting'), `it was answered ${first.status()}`)
  await page.getByRole('heading', { name: `Starting ${ready.gitspace}` }).waitFor()
  await page.screenshot({ path: join(shots, 'wake-live.png') })
  await goOn()
  await runs(page, 'opening it starts it, shows the steps, and opens what was wanted with its query')

  await stop()
  // What a tab that was left open does by itself.
  const [fetched, seen] = await page.evaluate(async () => {
    const answer = await fetch(location.href)
    return [answer.status, await answer.json()]
  })
  assert(fetched === 503 && seen.reason === 'gitspace-stopped', `a fetch was told ${fetched} ${JSON.stringify(seen)}`)
  // What is evaluated counts as the user's own act for five seconds.
  await Promise.all([page.waitForNavigation(), page.evaluate(() => void setTimeout(() => location.reload(), 6000))])
  await page.getByRole('button', { name: 'Start it' }).waitFor()
  await page.screenshot({ path: join(shots, 'wake-by-itself.png') })
  assert((await state()) === 'stopped', 'it was started by what comes by itself')
  console.log('ok  a fetch and a page that loads itself again start nothing')
  await page.getByRole('button', { name: 'Start it' }).click()
  await runs(page, 'the button starts it')

  await stop()
  const cookies = await context.cookies()
  const plain = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 900, height: 640 }, colorScheme: 'dark' })
  await plain.addCookies(cookies)
  const silent = await plain.newPage()
  await silent.goto(wanted, { waitUntil: 'commit' })
  await silent.getByRole('heading', { name: `Starting ${ready.gitspace}` }).waitFor()
  // It may go on in this moment: there is not always a picture.
  await silent.screenshot({ path: join(shots, 'wake-without-script.png') }).catch(() => undefined)
  await silent.getByRole('heading', { name: 'Hello' }).waitFor()
  assert(silent.url() === wanted, `it is at ${silent.url()}`)
  console.log('ok  without script it is started and opened too')
  // Held up, so that there is something to cancel.
  await stop()
  const holding = holdUp(demo.pid)
  await silent.goto(wanted)
  const agent = await holding
  await silent.getByRole('button', { name: 'Cancel the start' }).click()
  const cancelled = silent.getByRole('heading', { name: `The start of ${ready.gitspace} is cancelled` })
  await cancelled.waitFor()
  await silent.screenshot({ path: join(shots, 'wake-cancelled-live.png') })
  process.kill(agent, 'SIGCONT')
  await until('it is stopped again', async () => (await state()) === 'stopped')
  await silent.getByRole('button', { name: 'Start it' }).click()
  await silent.getByRole('heading', { name: 'Hello' }).waitFor()
  assert(silent.url() === wanted, `it is at ${silent.url()}`)
  console.log('ok  a start is cancelled, and started again to what was wanted')
  await plain.close()
  assert(complaints.length === 0, `the pages complained: ${complaints}`)

  await waits()
} finally {
  await browser?.close()
  for (const child of running) {
    child.kill('SIGINT')
    if (child.exitCode === null) await once(child, 'exit')
  }
}

// What a page asks for is held back until it may go on, so that it stays while it is looked at: the demo starts faster than one can look.
async function hearsNothing(page) {
  let goOn
  const looked = new Promise((done) => (goOn = done))
  await page.route('**', async (route) => {
    if (!route.request().isNavigationRequest()) await looked
    await route.continue()
  })
  return () => {
    goOn()
    return page.unrouteAll({ behavior: 'wait' })
  }
}

// A program that is not up yet: the page opens by itself when it is.
async function waits() {
  const server = createServer((request, response) => response.end(`here at ${request.url}`))
  const [port, http, admin] = freePorts(3)
  const state = join(folder, 'wait-state')
  mkdirSync(state, { recursive: true, mode: 0o700 })
  const log = join(folder, 'wait-access.log')
  writeFileSync(
    join(folder, 'wait.toml'),
    `roles = ["gateway"]
state_dir = "${state}"
[gateway]
listen = [{ address = "127.0.0.1:${http}", protocol = "http" }]
admin.address = "127.0.0.1:${admin}"
access_log.path = "${log}"
[[route]]
gitspace = "app-a1b2c3"
upstream = "http://127.0.0.1:${port}"
visibility = "public"
`,
  )
  start('wait', ['run', '--config', join(folder, 'wait.toml')])
  await until('the gateway', () => fetch(`http://127.0.0.1:${admin}/healthz`).then((answer) => answer.ok, () => false))
  const page = await (await browser.newContext({ viewport: { width: 900, height: 640 } })).newPage()
  await page.goto(`http://app-a1b2c3.gitspaces.localhost:${http}${QUERY}`)
  await page.getByRole('heading', { name: "Nothing listens on the IDE's port yet" }).waitFor()
  const asked = () => readFileSync(log, 'utf8').trim().split('\n').length
  await until('it asks again', () => asked() > 1)
  server.listen(port, '127.0.0.1')
  await page.getByText(`here at ${QUERY}`).waitFor()
  const times = readFileSync(log, 'utf8').trim().split('\n').length
  console.log(`ok  a page waits for its program, and opens it: ${times} requests`)
  server.close()
  server.closeAllConnections()
}

// Stops the next agent of the demo as soon as it is there: its gitspace stays on its way up.
async function holdUp(parent) {
  const read = (file) => {
    try {
      return readFileSync(`/proc/${file}`, 'utf8')
    } catch {
      // It ended meanwhile.
      return ''
    }
  }
  const children = () => readdirSync(`/proc/${parent}/task`).flatMap((thread) => read(`${parent}/task/${thread}/children`).trim().split(' '))
  const agents = () => children().filter((pid) => read(`${pid}/cmdline`).split('\0')[1] === 'agent')
  const before = agents()
  const end = Date.now() + 30_000
  while (Date.now() < end) {
    const [pid] = agents().filter((pid) => !before.includes(pid))
    if (pid) {
      process.kill(Number(pid), 'SIGSTOP')
      return Number(pid)
    }
    await new Promise((go) => setTimeout(go, 2))
  }
  throw new Error('no agent was started')
}
