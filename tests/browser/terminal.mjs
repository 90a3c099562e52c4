// terminal.mjs URL --shots DIR [--plain]: the built-in terminal as a person uses it, from the link to the shell's end.
//
// --plain: against a terminal server itself, without gateway and TLS.

import { assert, assertSecure, test, until } from './support/browser.mjs'
import { Screen } from './support/terminal.mjs'

test(['URL'], async ({ page, context, url, wire, steps, plain }) => {
  const step = steps.step.bind(steps)
  const screen = new Screen(page)
  const state = (name, on = page) => on.waitForSelector(`[data-state="${name}"]`)
  const note = (name, on = page) => on.waitForSelector(`[data-note="${name}"]`)
  const session = () => page.evaluate(() => sessionStorage.getItem('gitspace-terminal-session'))
  // What the shell thinks its window is, as "rows columns".
  const shellSize = async (mark) => (await screen.run(`echo ${mark}$((6*7)) $(stty size)`, `${mark}42 (\\d+ \\d+)`))[1]
  const sizeFits = async (mark) => {
    const rows = (await screen.rows()).length
    const size = await shellSize(mark)
    assert(size.startsWith(`${rows} `), `the window shows ${rows} rows, the shell was told ${size}`)
    return size
  }

  let first
  await step('the link opens the page', async () => {
    first = await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    assert(first.status() === 200, `the page answers ${first.status()}`)
  })
  if (!plain) {
    await step('HTTP/2 and a valid certificate', () => assertSecure(page, first))
    await step('the ticket is gone from the address', () => {
      assert(!page.url().includes('ticket') && !page.url().includes('token'), `the address is ${page.url()}`)
    })
  }

  await step('it connects and names the gitspace', async () => {
    await state('connected')
    return until('a title', () => page.title().then((title) => title !== 'Terminal' && title))
  })
  let shell
  await step('a command runs', async () => {
    await screen.run('echo first-$((6*7))', 'first-42')
    await screen.run('kept=value-$((40+2))', '.*') // seen below
    shell = (await screen.run('echo "shell=$$"', 'shell=(\\d+)'))[1]
    return `shell ${shell}`
  }, 'command')

  await step('after a reload the output and the shell are the same', async () => {
    const before = await session()
    await page.reload()
    await state('connected')
    await screen.line('first-42')
    await screen.run('echo "reloaded=$kept,$$"', `reloaded=value-42,${shell}`)
    assert((await session()) === before, 'the page has another session')
  }, 'reloaded')

  await step('a cut connection is said', async () => {
    await screen.type('(sleep 1; echo meanwhile-$((6*7))) &\n')
    await screen.line('.*meanwhile-.*')
    wire.cut()
    await note('waiting')
  }, 'cut')
  await step('it reconnects by itself; the shell went on', async () => {
    wire.mend()
    await state('connected')
    await screen.line('.*meanwhile-42')
    await screen.run('echo "again=$kept,$$"', `again=value-42,${shell}`)
    const text = await screen.text()
    assert(text.split('first-42').length === 2, `output came twice:\n${text}`)
    return `${wire.opened()} TCP connections so far`
  }, 'reconnected')

  await step('the shell learns the size of the window', async () => {
    const before = await sizeFits('before-')
    await page.setViewportSize({ width: 760, height: 460 })
    await until('fewer rows', async () => (await screen.rows()).length < Number(before.split(' ')[0]))
    return `${before} → ${await sizeFits('after-')}`
  }, 'small')
  await step('larger text is fewer rows', async () => {
    const before = (await screen.rows()).length
    for (let times = 0; times < 3; times += 1) await page.getByRole('button', { name: 'Larger text' }).click()
    await until('fewer rows', async () => (await screen.rows()).length < before)
    await sizeFits('large-')
    for (let times = 0; times < 3; times += 1) await page.getByRole('button', { name: 'Smaller text' }).click()
    await until('the rows of before', async () => (await screen.rows()).length === before)
    await page.setViewportSize({ width: 1100, height: 680 })
  })

  await step('copy and paste', async () => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write'])
    await page.evaluate(() => navigator.clipboard.writeText('echo pasted-$((6*7))'))
    await page.getByRole('button', { name: 'Paste' }).click()
    // The clipboard is read in its own time.
    await screen.line('.*echo pasted-.*')
    await screen.type('\n')
    await screen.line('pasted-42')
    const index = (await screen.rows()).lastIndexOf('pasted-42')
    const row = await page.locator('.xterm-rows > div').nth(index).boundingBox()
    await page.mouse.dblclick(row.x + 20, row.y + row.height / 2)
    await page.getByRole('button', { name: 'Copy' }).click()
    const clipboard = () => page.evaluate(() => navigator.clipboard.readText())
    await until('the word in the clipboard', async () => (await clipboard()) === 'pasted-42', clipboard)
  })

  await step('one window at a time; the shell can be taken back', async () => {
    const [other] = await Promise.all([context.waitForEvent('page'), page.evaluate(() => void window.open(location.href))])
    await state('connected', other)
    await new Screen(other).line('first-42')
    await note('elsewhere')
    await steps.picture('elsewhere')
    await page.getByRole('button', { name: 'Use it here' }).click()
    await state('connected')
    await note('elsewhere', other)
    await other.close()
    await screen.run('echo "back=$kept,$$"', `back=value-42,${shell}`)
  })

  await step('more output than can be drawn does not stop it', async () => {
    await screen.run("head -c 20000000 /dev/zero | tr '\\0' x | fold -w 70; echo; echo flood-$((6*7))", 'flood-42')
  })

  await step('the end of the shell is said', async () => {
    await screen.type('exit 3\n')
    await page.locator('[data-note="ended"]', { hasText: 'code 3' }).waitFor()
  }, 'ended')
  await step('Enter begins a new shell', async () => {
    await page.keyboard.press('Enter')
    await state('connected')
    const fresh = (await screen.run('echo "new=[$kept],$$"', 'new=\\[\\],(\\d+)'))[1]
    assert(fresh !== shell, 'it is the same shell')
  })
  await step('a light screen if the system is light', async () => {
    await page.emulateMedia({ colorScheme: 'light' })
    await screen.run('for c in 1 2 3 4 5 6; do printf "\\033[3${c}mcolour \\033[9${c}mbright  "; done; printf "\\033[0m\\n"', 'colour .*')
  }, 'light')
})
