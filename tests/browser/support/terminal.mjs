// Reading and typing in an xterm.js terminal of a page. Its renderer keeps one element per row of the window.

import { until } from './browser.mjs'

export class Screen {
  #page

  constructor(page) {
    this.#page = page
  }

  // The rows, without the blanks at their ends.
  rows() {
    return this.#page.evaluate(() =>
      [...document.querySelectorAll('.xterm-rows > div')].map((row) => row.textContent.replaceAll('\u00a0', ' ').trimEnd()),
    )
  }

  async text() {
    return (await this.rows()).join('\n').trimEnd()
  }

  // Waits for a row that matches from its beginning to its end, and returns the match of the last such row.
  line(pattern) {
    const whole = new RegExp(`^(?:${pattern})$`)
    const search = async () => {
      const found = (await this.rows()).map((row) => whole.exec(row)).filter(Boolean)
      return found.at(-1)
    }
    return until(`a line ${whole} in the terminal; its last lines:`, search, async () => (await this.text()).split('\n').slice(-12).join('\n'))
  }

  async type(text) {
    await this.#page.locator('.xterm-helper-textarea').focus()
    await this.#page.keyboard.type(text)
  }

  // The command must not contain what its output is recognised by: the terminal shows both.
  async run(command, pattern) {
    await this.type(`${command}\n`)
    return this.line(pattern)
  }
}
