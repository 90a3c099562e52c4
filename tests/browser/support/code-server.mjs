// code-server in its page: how it is entered, and its terminal.

import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { until } from './browser.mjs'

const FIRST_START = 120_000
const STARTS = 90_000
const SCREEN = '.terminal-wrapper .xterm-screen'

// Opens it at a URL with our ticket, gives it its own password, and waits for a README.md in the folder that it shows. Gives its entry there.
export async function enter(page, url, password) {
  await page.goto(url.href, { waitUntil: 'domcontentloaded' })
  await giveThePassword(page, password)
  const entry = page.locator('.explorer-folders-view .monaco-list-row', { hasText: 'README.md' })
  await entry.waitFor({ timeout: FIRST_START })
  return entry
}

export async function giveThePassword(page, password) {
  await page.locator('input[type=password]').fill(password)
  await page.locator('input[type=submit]').click()
}

// It draws on a canvas, so what a command did is looked up in a file of the folder where its shell is.
export class Terminal {
  #page
  #folder

  // `folder`: on this machine.
  constructor(page, folder) {
    this.#page = page
    this.#folder = folder
  }

  // Opens it, and types until its shell has got it: before that is there, what is typed goes elsewhere. Gives the shell's process.
  async open() {
    const screen = this.#page.locator(SCREEN)
    const opened = async () => {
      if (await screen.isVisible()) return true
      await this.#page.keyboard.press('Control+Backquote')
      return screen.waitFor({ timeout: 5000 }).then(() => true, () => false)
    }
    await until('a terminal', opened, undefined, STARTS)
    return this.answers('opened', STARTS)
  }

  // Types until the shell has got it, however much is lost on the way.
  answers(word, patience) {
    const tried = () => this.says(word, 5000).catch(() => undefined)
    return until('a shell that answers in the terminal', tried, undefined, patience)
  }

  // Types a command once and waits until it was run. Gives the shell's process, which is in `word`.txt then.
  async says(word, patience) {
    const name = `${word}.txt`
    const file = join(this.#folder, name)
    const said = () => (existsSync(file) ? readFileSync(file, 'utf8') : '')
    rmSync(file, { force: true })
    await this.#page.locator(SCREEN).click()
    // The first line ends what came of an earlier try.
    await this.#page.keyboard.type(`\necho $$ > ${name}\n`)
    return until(`a shell's process in ${file}`, () => /^(\d+)\n$/.exec(said())?.[1], said, patience)
  }
}
