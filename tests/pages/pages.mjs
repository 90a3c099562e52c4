// pages.mjs FOLDER SHOTS: every page of ours as people meet it: light, dark, at 400 % zoom, with the keyboard only.
//
// FOLDER has a file per page with all that the gateway sends: status, headers and body. Not here: what the pages say.

import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { basename, join } from 'node:path'
import { assert, launch } from '../browser/support/browser.mjs'

const [folder, shots] = process.argv.slice(2)
const WAYS = {
  light: { colorScheme: 'light', viewport: { width: 1100, height: 680 } },
  dark: { colorScheme: 'dark', viewport: { width: 1100, height: 680 } },
  // 1280 × 1024 at 400 % (WCAG 1.4.10).
  zoomed: { colorScheme: 'light', viewport: { width: 320, height: 256 } },
}
// Everything that must be found, to show that it would be.
const BAD = {
  status: 200,
  headers: { 'content-type': 'text/html', 'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'" },
  body: `<!doctype html><html><title></title><body style="background:#fff"><h1>a</h1><h1>b</h1>
    <p style="color:#999; width: 2000px">pale and wide</p><script>1</script><a href="" style="outline:none">a</a><a href="" tabindex="-1">b</a>`,
}
const FINDS = ['language', 'headings', 'landmarks', 'title', 'contrast', 'scrolls sideways', 'Content Security Policy', 'focus is not seen', 'cannot be reached']

const pages = new Map(
  readdirSync(folder).map((file) => [basename(file, '.json'), JSON.parse(readFileSync(join(folder, file), 'utf8'))]),
)
assert(pages.size > 30, `only ${pages.size} pages in ${folder}`)

// A page is there until it is loaded: one that asks for itself again then gets nothing, and stays while it is looked at.
let wanted = ''
const server = createServer((request, response) => {
  const name = request.url.slice(1)
  const page = name !== wanted ? undefined : name === 'bad' ? BAD : pages.get(name)
  if (!page) return response.writeHead(204).end()
  response.writeHead(page.status, page.headers).end(page.body)
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const origin = `http://127.0.0.1:${server.address().port}`

const browser = await launch('MAP * ~NOTFOUND, EXCLUDE 127.0.0.1')
let wrong = 0
try {
  const found = await look(await browser.newPage(WAYS.light), 'bad', 'light')
  for (const problem of FINDS) assert(found.some((one) => one.includes(problem)), `nothing says "${problem}" of a page that is wrong: ${found}`)
  for (const way of Object.keys(WAYS)) {
    const page = await browser.newPage(WAYS[way])
    for (const name of pages.keys()) {
      for (const problem of await look(page, name, way)) {
        wrong += 1
        console.error(`WRONG ${name}, ${way}: ${problem}`)
      }
    }
    console.log(`looked at ${pages.size} pages, ${way}`)
  }
} finally {
  await browser.close()
  server.close()
}
if (wrong) process.exit(1)

// What is wrong with a page, in one way of looking at it.
async function look(page, name, way) {
  const problems = []
  page.removeAllListeners()
  page.on('pageerror', (error) => problems.push(`exception: ${error.message}`))
  page.on('console', (message) => {
    // That the page itself is a 404 is what it is.
    const itself = message.text().startsWith('Failed to load resource') && message.location().url === `${origin}/${name}`
    if (['error', 'warning'].includes(message.type()) && !itself) problems.push(message.text())
  })
  wanted = name
  await page.goto(`${origin}/${name}`)
  wanted = ''
  if (name !== 'bad') await page.screenshot({ path: join(shots, `${name}-${way}.png`), fullPage: true })
  problems.push(...(await page.evaluate(inThePage)))
  problems.push(...(await byKeyboard(page)))
  return problems
}

// Tab reaches every link, button and log that can be seen, in their order, and each shows that it has the focus.
async function byKeyboard(page) {
  const problems = []
  const all = 'a, button, summary, pre:not(details:not([open]) pre)'
  const count = await page.evaluate((all) => document.querySelectorAll(all).length, all)
  for (let index = 0; index < count; index += 1) {
    await page.keyboard.press('Tab')
    const focused = await page.evaluate(([all, index]) => {
      const wanted = document.querySelectorAll(all)[index]
      if (document.activeElement !== wanted) return 'cannot be reached by Tab'
      const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(wanted)
      const seen = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 && outlineColor !== 'transparent'
      const { top, bottom, left, right } = wanted.getBoundingClientRect()
      if (top < 0 || left < 0 || bottom > innerHeight || right > innerWidth) return 'is not in the window when it has the focus'
      return seen ? '' : 'has the focus, and the focus is not seen'
    }, [all, index])
    if (focused) problems.push(`link ${index + 1} ${focused}`)
  }
  return problems
}

// Runs in the page.
function inThePage() {
  const problems = []
  const one = (selector, words) => {
    const count = document.querySelectorAll(selector).length
    if (count !== 1) problems.push(`${count} ${words}`)
  }
  if (!document.documentElement.lang) problems.push('no language')
  if (!document.title) problems.push('no title')
  one('h1', 'headings')
  one('main', 'landmarks')
  const wide = document.scrollingElement.scrollWidth
  if (wide > innerWidth) problems.push(`it scrolls sideways: ${wide} of ${innerWidth}`)

  const channels = (colour) => colour.match(/[\d.]+/g).map(Number)
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((part) => {
      const share = part / 255
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor
      const [, , , alpha = 1] = channels(colour)
      if (alpha === 1) return colour
    }
    return 'rgb(255, 255, 255)'
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim()
    const element = texts.currentNode.parentElement
    if (!text || element.tagName === 'SCRIPT') continue
    const [light, dark] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a)
    const contrast = (light + 0.05) / (dark + 0.05)
    if (contrast < 4.5) problems.push(`contrast ${contrast.toFixed(2)} of "${text.slice(0, 40)}"`)
  }
  return problems
}
