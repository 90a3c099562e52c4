// What the scripts share (those of tests/pages too): arguments, Chromium, steps with screenshots, the checks on the connection.
//
// Not here: what is tested.

import { mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'
import { through } from './wire.mjs'

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium'
const PATIENCE = 30_000

// names: the positional arguments. --shots DIR: where screenshots go. --plain: no TLS, so nothing to check about it.
export function readArguments(names) {
  const usage = `usage: ${basename(process.argv[1])} ${names.join(' ')} --shots DIR [--plain]`
  const options = { shots: { type: 'string' }, plain: { type: 'boolean', default: false } }
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true })
    if (positionals.length !== names.length || !values.shots) throw new Error(usage)
    return { ...values, positionals }
  } catch (error) {
    console.error(error.message === usage ? usage : `${error.message}\n${usage}`)
    process.exit(2)
  }
}

// Chromium that finds hosts by these rules and speaks to nobody else. HOME: where it looks for the authorities that it trusts.
export function launch(rules, home = process.env.HOME) {
  return chromium.launch({
    executablePath: CHROMIUM,
    env: { ...process.env, HOME: home },
    args: [
      '--no-sandbox', // as root it has none
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      `--host-resolver-rules=${rules}`,
    ],
  })
}

// Runs the test in a fresh browser whose connections to the URL's host go through a wire that can be cut.
// `gone`: the app is, for a while. What it frames then is a page of the gateway's, which nobody may frame.
export async function test(names, body, { gone = false } = {}) {
  const { positionals, shots, plain } = readArguments(names)
  mkdirSync(shots, { recursive: true })
  const url = new URL(positionals[0])
  const wire = await through(url)
  const browser = await launch(`MAP ${url.hostname} 127.0.0.1:${wire.port}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1`)
  const context = await browser.newContext({ viewport: { width: 1100, height: 680 }, colorScheme: 'dark' })
  context.setDefaultTimeout(PATIENCE)
  const page = await context.newPage()
  const problems = watch(context, gone ? "frame-ancestors 'none'" : undefined)
  const steps = new Steps(shots, page)
  try {
    await body({ page, context, url, wire, steps, plain, positionals })
    await steps.step('the pages reported no error of their own', () => {
      if (problems.length > 0) throw new Error(problems.join('\n'))
    })
  } catch (error) {
    // Without Playwright's log of its attempts.
    console.error(`FAILED  ${steps.current}\n${error.message.split('\nCall log:')[0].replaceAll(/^/gm, '        ')}`)
    await steps.picture('failed')
    process.exitCode = 1
  } finally {
    await browser.close()
    wire.close()
  }
}

// Exceptions, and what the content policy forbade, but for what is `asked`. A cut connection also makes the console complain: that is asked for too.
function watch(context, asked) {
  const problems = []
  context.on('weberror', (error) => problems.push(`exception: ${error.error().message}`))
  context.on('console', (message) => {
    const text = message.text()
    if (message.type() === 'error' && text.includes('Content Security Policy') && !(asked && text.includes(asked))) problems.push(text)
  })
  return problems
}

class Steps {
  #shots
  #page
  #count = 0
  #began = Date.now()
  current = 'starting'

  constructor(shots, page) {
    this.#shots = shots
    this.#page = page
  }

  // A step passes unless it throws. `shot` names the picture taken after it.
  async step(words, act, shot) {
    this.current = words
    const detail = await act()
    const seconds = ((Date.now() - this.#began) / 1000).toFixed(1).padStart(5)
    console.log(`ok ${seconds} s  ${words}${typeof detail === 'string' ? `: ${detail}` : ''}`)
    if (shot) await this.picture(shot)
  }

  async picture(name) {
    this.#count += 1
    const script = basename(process.argv[1], '.mjs')
    const file = `${script}-${String(this.#count).padStart(2, '0')}-${name}.png`
    // A page that goes on in this moment has none.
    await this.#page.screenshot({ path: join(this.#shots, file) }).catch(() => undefined)
  }
}

// The connection that the page came over: HTTP/2, and a certificate that Chromium checked.
export async function assertSecure(page, response) {
  const protocol = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol)
  assert(protocol === 'h2', `the page came over ${protocol || 'an unknown protocol'}, not h2`)
  const details = await response.securityDetails()
  assert(details, 'the page came without TLS')
  assert(await page.evaluate(() => isSecureContext && location.protocol === 'https:'), 'the page is not a secure context')
  return `${protocol}, ${details.protocol}, issued by ${details.issuer}`
}

export function assert(good, words) {
  if (!good) throw new Error(words)
}

// Waits until `ask` gives something true, and returns it; else says what it wanted and what there was.
export async function until(words, ask, last = () => '', patience = PATIENCE) {
  const end = Date.now() + patience
  for (;;) {
    const found = await ask()
    if (found) return found
    if (Date.now() > end) throw new Error(`waited ${patience / 1000} s for ${words}\n${await last()}`.trimEnd())
    await new Promise((go) => setTimeout(go, 50))
  }
}
