// login.mjs PROGRAM FOLDER: a page behind the gateway whose session ends logs its user in in a window of its own, and stays as it is.
//
// Here are the gateway's program, an app, and a login that gives whoever asks a ticket; Chromium trusts the development CA. Also seen: a
// login that cuts the tie to the page that opened it, a page of somebody else, and no script.

import { spawn, spawnSync } from 'node:child_process'
import { createHmac, randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { assert, launch, until } from '../browser/support/browser.mjs'
import { freePorts } from '../browser/support/ports.mjs'

const [program, folder] = process.argv.slice(2)
const GITSPACE = 'app-a1b2c3'
const ISSUER = 'https://issuer.test'
const secret = randomBytes(48).toString('base64')
const home = join(folder, 'home')
const state = join(folder, 'state')
mkdirSync(state, { recursive: true, mode: 0o700 })

// What docs/authentication.md tells an app to do. It also notes by which way it heard.
const PAGE = `<!doctype html><html lang="en"><title>An app</title><textarea></textarea><button>Load</button><output></output>
<script>
  globalThis.heard = []
  globalThis.ticks = 0
  setInterval(() => (ticks += 1), 20)
  addEventListener('message', (event) => event.origin === origin && event.data.type === 'gitspace-login' && heard.push('opener'))
  new BroadcastChannel('gitspace-login').onmessage = () => heard.push('channel')

  function signIn(login) {
    return new Promise((done) => {
      const channel = new BroadcastChannel('gitspace-login')
      channel.onmessage = () => {
        channel.close()
        done()
      }
      open(login + '?popup', '_blank', 'popup,width=500,height=700')
    })
  }
  async function load() {
    const answer = await fetch('/data')
    const output = document.querySelector('output')
    if (answer.status !== 401) return (output.value = answer.status + ' ' + (await answer.text()))
    output.value = '401'
    const { login } = await answer.json()
    await signIn(login)
    await load()
  }
  document.querySelector('button').onclick = load
</script>`

let alone = false
const app = await serve((request, response) => {
  if (request.url === '/data') return response.end('fresh')
  response.setHeader('content-type', 'text/html').end(PAGE)
})
// Logs in whoever clicks. `alone`: it wants nothing to do with who opened it, as many do.
const login = await serve((request, response) => {
  const asked = new URL(request.url, 'http://login.test')
  const target = asked.searchParams.get('return_to')
  response.setHeader('content-type', 'text/html')
  if (asked.pathname === '/favicon.ico') return response.writeHead(204).end()
  if (asked.pathname === '/foreign') return response.end('<!doctype html><title>Somebody else</title>')
  if (alone) response.setHeader('cross-origin-opener-policy', 'same-origin')
  const back = new URL('/_gitspace/login', target)
  back.searchParams.set('ticket', ticket())
  back.searchParams.set('state', asked.searchParams.get('state'))
  response.end(`<!doctype html><title>Login</title><a href="${back.href.replaceAll('&', '&amp;')}">Log in</a>`)
})

const [https, admin] = freePorts(2)
const origin = `https://${GITSPACE}.gitspaces.localhost:${https}`
writeFileSync(join(state, 'issuer.secret'), secret, { mode: 0o600 })
writeFileSync(
  join(folder, 'config.toml'),
  `roles = ["gateway"]
state_dir = "${state}"
[gateway]
listen = [{ address = "127.0.0.1:${https}", protocol = "https" }]
admin.address = "127.0.0.1:${admin}"
access_log.path = "${folder}/access.log"
auth.login_url = "http://127.0.0.1:${login.port}/start"
[[gateway.issuer]]
issuer = "${ISSUER}"
[[gateway.issuer.key]]
id = "1"
algorithm = "HS256"
secret_file = "${state}/issuer.secret"
[[route]]
gitspace = "${GITSPACE}"
owner = "ada"
upstream = "http://127.0.0.1:${app.port}"
`,
)
const log = openSync(join(folder, 'gateway.log'), 'a')
const gateway = spawn(program, ['run', '--config', join(folder, 'config.toml')], { stdio: ['ignore', log, log] })
process.on('exit', () => gateway.kill('SIGTERM'))
const authority = join(state, 'dev', 'ca.pem')
let browser
try {
  await until('the gateway', async () => {
    assert(gateway.exitCode === null, `the gateway ended; its log is ${folder}/gateway.log`)
    return existsSync(authority) && (await fetch(`http://127.0.0.1:${admin}/healthz`).then((answer) => answer.ok, () => false))
  })
  const trust = join(dirname(fileURLToPath(import.meta.url)), '../browser/trust-ca.sh')
  assert(spawnSync(trust, [home, authority], { stdio: 'inherit' }).status === 0, 'the CA is not trusted')
  browser = await launch('MAP *.gitspaces.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1', home)
  for (const [words, test] of [
    ['the page stays while its user logs in, and its next fetch is answered', stays],
    ['it hears of it from a login that cuts the tie between the windows too', staysAlone],
    ['a page of another origin that opens it is not told, and sees no window close', tellsNobodyElse],
    ['without script it is a text', withoutScript],
  ]) {
    const context = await browser.newContext({ viewport: { width: 900, height: 600 } })
    context.setDefaultTimeout(20_000)
    const complaints = []
    context.on('weberror', (error) => complaints.push(error.error().message))
    context.on('console', (message) => {
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) complaints.push(message.text())
    })
    await test(context)
    assert(complaints.length === 0, `${words}: ${complaints}`)
    await context.close()
    console.log(`ok  ${words}`)
  }
} finally {
  await browser?.close()
  gateway.kill('SIGTERM')
  app.close()
  login.close()
}

async function stays(context) {
  const page = await opened(context)
  const popup = await loggedIn(context, page)
  await popup.waitForEvent('close').catch(() => assert(popup.isClosed(), 'the window did not close'))
  await isTheSame(page, ['channel', 'opener'])
  // A session that holds is renewed the same way.
  await page.evaluate(() => (heard.length = 0))
  const [again] = await Promise.all([context.waitForEvent('page'), page.evaluate(() => void open('/_gitspace/login?popup'))])
  await again.getByText('Log in').click()
  await page.waitForFunction(() => heard.length === 2)
}

async function staysAlone(context) {
  alone = true
  const page = await opened(context)
  const popup = await loggedIn(context, page)
  await popup.getByRole('heading', { name: 'You are signed in' }).waitFor()
  await popup.screenshot({ path: join(folder, 'shots', 'signed-in.png') })
  await isTheSame(page, ['channel'])
  alone = false
}

async function tellsNobodyElse(context) {
  await opened(context)
  const foreign = await context.newPage()
  await foreign.goto(`http://127.0.0.1:${login.port}/foreign`)
  for (const disowned of [false, true]) {
    await foreign.evaluate(() => {
      globalThis.heard = []
      addEventListener('message', (event) => heard.push(event.data))
      new BroadcastChannel('gitspace-login').onmessage = (event) => heard.push(event.data)
    })
    const [popup] = await Promise.all([
      context.waitForEvent('page'),
      foreign.evaluate(
        ([url, disowned]) => {
          globalThis.other = open('about:blank')
          if (disowned) other.opener = null
          other.location = url
        },
        [`${origin}/_gitspace/signed-in`, disowned],
      ),
    ])
    await popup.getByRole('heading', { name: 'You are signed in' }).waitFor()
    await popup.waitForLoadState('load')
    // Whatever it had to say it has said when a word after it is back.
    await foreign.evaluate(() => new Promise((go) => setTimeout(go, 300)))
    const [closed, heard] = await foreign.evaluate(() => [other.closed, heard])
    assert(!closed && heard.length === 0, `a page of another origin: closed ${closed}, heard ${JSON.stringify(heard)}`)
  }
}

async function withoutScript(context) {
  await opened(context)
  const cookies = await context.cookies()
  const plain = await browser.newContext({ javaScriptEnabled: false })
  await plain.addCookies(cookies)
  const page = await plain.newPage()
  await page.goto(`${origin}/_gitspace/signed-in`)
  await page.getByText('You can close this window').waitFor()
  await plain.close()
}

// The app's page, opened with a session, with something typed in it.
async function opened(context) {
  const page = await context.newPage()
  await page.goto(`${origin}/?gitspace_token=${ticket()}`)
  await page.fill('textarea', 'not saved yet')
  await page.evaluate(() => (globalThis.mark = 'the same document'))
  await page.click('button')
  await page.getByText('200 fresh').waitFor()
  return page
}

// Its session ends; its next fetch says where to log in; a click there.
async function loggedIn(context, page) {
  await context.clearCookies()
  const [popup] = await Promise.all([context.waitForEvent('page'), page.click('button')])
  assert((await page.textContent('output')) === '401', 'it was not refused')
  await popup.getByText('Log in').click()
  return popup
}

async function isTheSame(page, by) {
  await page.getByText('200 fresh').waitFor()
  await page.waitForFunction((count) => heard.length === count, by.length)
  const found = await page.evaluate(() => ({ mark: globalThis.mark, text: document.querySelector('textarea').value, heard: heard.toSorted() }))
  const expected = { mark: 'the same document', text: 'not saved yet', heard: by }
  assert(JSON.stringify(found) === JSON.stringify(expected), `it is ${JSON.stringify(found)}`)
  const ticks = await page.evaluate(() => globalThis.ticks)
  await page.waitForFunction((before) => globalThis.ticks > before, ticks)
}

function ticket() {
  const now = Math.floor(Date.now() / 1000)
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = { iss: ISSUER, aud: 'cde-gateway', sub: 'ada', iat: now, exp: now + 60, jti: randomUUID(), use: 'ticket', gitspace: GITSPACE, ports: ['ide'] }
  const signed = `${part({ alg: 'HS256', kid: '1' })}.${part(claims)}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

async function serve(answer) {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => (server.close(), server.closeAllConnections())
  return { port: server.address().port, close }
}
