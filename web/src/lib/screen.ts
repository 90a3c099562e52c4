// The screen: xterm.js with our colours, sized to its element.
//
// Not here: where bytes come from and go to (connection.ts).

import { FitAddon } from '@xterm/addon-fit'
import { WebLinksAddon } from '@xterm/addon-web-links'
import { Terminal, type IDisposable } from '@xterm/xterm'
import '@xterm/xterm/css/xterm.css'
import type { Output, Size } from './connection'
import { dark, light } from './themes'

const FONT = 'ui-monospace, "Cascadia Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'
// How long after a reload output may still be of the past.
const REPLAY_LASTS = 500

export class Screen implements Output {
  readonly #terminal: Terminal
  readonly #fit = new FitAddon()
  readonly #bright = matchMedia('(prefers-color-scheme: light)')
  readonly #observer: ResizeObserver
  #replayUntil = 0

  constructor(element: HTMLElement, fontSize: number) {
    this.#terminal = new Terminal({
      fontFamily: FONT,
      fontSize,
      lineHeight: 1.15,
      cursorBlink: true,
      scrollback: 10_000,
      theme: this.#theme(),
      // Text stays legible whatever colours a program chooses.
      minimumContrastRatio: 4.5,
    })
    this.#terminal.loadAddon(this.#fit)
    this.#terminal.loadAddon(new WebLinksAddon((_, uri) => window.open(uri, '_blank', 'noopener,noreferrer')))
    this.#terminal.open(element)
    this.#ignoreOldQuestions()
    this.#terminal.attachCustomKeyEventHandler((event) => this.#shortcut(event))
    this.#bright.addEventListener('change', this.#recolour)
    this.#observer = new ResizeObserver(() => this.#fit.fit())
    this.#observer.observe(element)
    this.#fit.fit()
  }

  onInput(listener: (bytes: Uint8Array<ArrayBuffer>) => void): void {
    const encoder = new TextEncoder()
    this.#terminal.onData((text) => listener(encoder.encode(text)))
    // Some mouse reports are no UTF-8: one character is one byte.
    this.#terminal.onBinary((text) => listener(Uint8Array.from(text, (character) => character.charCodeAt(0))))
  }

  onResize(listener: (size: Size) => void): void {
    this.#terminal.onResize(listener)
  }

  size(): Size {
    return { cols: this.#terminal.cols, rows: this.#terminal.rows }
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((drawn) => this.#terminal.write(bytes, drawn))
  }

  clear(): void {
    // In order with what is being drawn: ESC c is a full reset.
    this.#terminal.write('\x1bc')
  }

  remark(text: string): void {
    this.#terminal.write(`\r\n\x1b[0;2m— ${text} —\x1b[0m\r\n`)
  }

  replay(): void {
    this.#replayUntil = performance.now() + REPLAY_LASTS
  }

  setFontSize(size: number): void {
    this.#terminal.options.fontSize = size
    this.#fit.fit()
  }

  focus(): void {
    this.#terminal.focus()
  }

  // False if nothing is selected. Rejected if the browser refuses.
  async copy(): Promise<boolean> {
    const text = this.#terminal.getSelection()
    if (text === '') return false
    await navigator.clipboard.writeText(text)
    return true
  }

  async paste(): Promise<void> {
    // Bracketed if the program asked for it.
    this.#terminal.paste(await navigator.clipboard.readText())
  }

  close(): void {
    this.#bright.removeEventListener('change', this.#recolour)
    this.#observer.disconnect()
    this.#terminal.dispose()
  }

  #theme() {
    return this.#bright.matches ? light : dark
  }

  #recolour = (): void => {
    this.#terminal.options.theme = this.#theme()
  }

  // Ctrl-Shift-C and -V: plain Ctrl-C and -V belong to the shell.
  #shortcut(event: KeyboardEvent): boolean {
    if (!event.ctrlKey || !event.shiftKey || event.altKey) return true
    if (event.code === 'KeyC') {
      event.preventDefault()
      if (event.type === 'keydown') void this.copy().catch(() => undefined)
      return false
    }
    // The browser's own paste follows; xterm takes it, and no permission is asked for.
    return event.code !== 'KeyV'
  }

  // A terminal answers questions in what it draws ("where is the cursor?"). In output of the past the asker has had its
  // answer; a second one would be typed into the shell.
  #ignoreOldQuestions(): IDisposable[] {
    const old = (): boolean => performance.now() < this.#replayUntil
    const colour = (data: string): boolean => data.includes('?') && old()
    const parser = this.#terminal.parser
    return [
      ...[{ final: 'c' }, { prefix: '>', final: 'c' }, { final: 'n' }, { prefix: '?', final: 'n' }].map((id) =>
        parser.registerCsiHandler(id, old),
      ),
      parser.registerCsiHandler({ intermediates: '$', final: 'p' }, old),
      parser.registerCsiHandler({ prefix: '?', intermediates: '$', final: 'p' }, old),
      parser.registerDcsHandler({ intermediates: '$', final: 'q' }, old),
      ...[4, 10, 11, 12].map((code) => parser.registerOscHandler(code, colour)),
    ]
  }
}
