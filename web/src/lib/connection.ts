// The WebSocket to the shell: opens it, opens it again when it breaks, and says what state it is in.
//
// The server keeps the shell and the last of its output, and counts output in bytes from its beginning. We count too,
// so a new socket continues where the old one broke. Not here: what is drawn (screen.ts), what is shown (App.svelte).

export type State =
  | { name: 'connecting' }
  | { name: 'connected' }
  // Broken; the next attempt is made at `until` (milliseconds, as of Date.now).
  | { name: 'waiting'; until: number }
  // The rest wait for the user.
  | { name: 'ended'; code: number }
  | { name: 'elsewhere' }
  | { name: 'refused'; reason: string }
  | { name: 'denied' }

export interface Size {
  cols: number
  rows: number
}

// Where the connection draws.
export interface Output {
  size(): Size
  // Resolves when the bytes are drawn.
  write(bytes: Uint8Array): Promise<void>
  // Forgets what was drawn.
  clear(): void
  // A line of ours between the shell's.
  remark(text: string): void
  // Output that follows was once seen: questions in it were answered then.
  replay(): void
}

const STORED = 'gitspace-terminal-session'
const TAKEN_OVER = 4001
const NO_SESSION = 4002
const FIRST_WAIT = 500
const LONGEST_WAIT = 15_000
const ANSWER_WITHIN = 15_000
// The server takes a megabyte at most; smaller pieces let a slow shell hold the paste back.
const PIECE = 64 * 1024
// Output received and not yet drawn. Beyond it we hang up and continue from what is drawn.
const UNDRAWN_MAX = 16 * 1024 * 1024

export class Connection {
  #socket: WebSocket | undefined
  #session = sessionStorage.getItem(STORED) ?? ''
  #offset = 0
  #undrawn = 0
  #failures = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  readonly #output: Output
  readonly #report: (state: State) => void

  constructor(output: Output, report: (state: State) => void) {
    this.#output = output
    this.#report = report
  }

  open(): void {
    this.#drop()
    this.#report({ name: 'connecting' })
    const { cols, rows } = this.#output.size()
    const url = new URL('ws', document.baseURI)
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
    url.search = new URLSearchParams({
      session: this.#session,
      after: String(this.#offset),
      cols: String(cols),
      rows: String(rows),
    }).toString()
    // By this name the gateway tells what is typed from what is not.
    const socket = new WebSocket(url, 'terminal.gitspace')
    socket.binaryType = 'arraybuffer'
    socket.onmessage = ({ data }) => {
      if (typeof data === 'string') this.#control(data)
      else this.#draw(new Uint8Array(data as ArrayBuffer))
    }
    socket.onclose = ({ code, reason }) => this.#closed(code, reason)
    this.#socket = socket
    // A network that swallows packets says nothing at all.
    this.#timer = setTimeout(() => this.#closed(0, ''), ANSWER_WITHIN)
  }

  // Leaves the old shell, if there is one, and begins a new one.
  renew(): void {
    this.#forget()
    this.#failures = 0
    this.#output.clear()
    this.open()
  }

  // The network is back, or the user is impatient.
  retry(): void {
    this.#failures = 0
    this.open()
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return
    for (let at = 0; at < bytes.length; at += PIECE) this.#socket.send(bytes.subarray(at, at + PIECE))
  }

  resize({ cols, rows }: Size): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return
    this.#socket.send(JSON.stringify({ type: 'resize', cols, rows }))
  }

  #control(text: string): void {
    const message = parse(text)
    if (message?.type === 'session') this.#begun(message.id, message.offset)
    if (message?.type === 'exit') {
      this.#drop()
      this.#forget()
      this.#report({ name: 'ended', code: message.code })
    }
  }

  #begun(id: string, offset: number): void {
    const again = id === this.#session
    if (again && offset > this.#offset && this.#offset > 0) this.#output.remark('some output was skipped')
    if (again && this.#offset === 0) this.#output.replay()
    if (!again && this.#session !== '') {
      this.#output.clear()
      this.#output.remark('the earlier shell is gone; this is a new one')
    }
    this.#session = id
    this.#offset = offset
    this.#failures = 0
    sessionStorage.setItem(STORED, id)
    clearTimeout(this.#timer)
    // The window may have changed since the socket was asked for.
    this.resize(this.#output.size())
    this.#report({ name: 'connected' })
  }

  #draw(bytes: Uint8Array): void {
    if (this.#undrawn > UNDRAWN_MAX) {
      this.#drop()
      this.#again(FIRST_WAIT)
      return
    }
    this.#offset += bytes.length
    this.#undrawn += bytes.length
    void this.#output.write(bytes).then(() => (this.#undrawn -= bytes.length))
  }

  #closed(code: number, reason: string): void {
    this.#drop()
    if (code === TAKEN_OVER) return this.#report({ name: 'elsewhere' })
    if (code === NO_SESSION) return this.#report({ name: 'refused', reason })
    const wait = Math.min(FIRST_WAIT * 2 ** this.#failures, LONGEST_WAIT)
    this.#failures += 1
    // Pages that lost the same gateway should not return in the same instant.
    this.#again(wait * (0.75 + Math.random() / 2))
    void this.#ask()
  }

  #again(wait: number): void {
    this.#report({ name: 'waiting', until: Date.now() + wait })
    this.#timer = setTimeout(() => this.open(), wait)
  }

  // A refused WebSocket does not say why; an ordinary request does.
  async #ask(): Promise<void> {
    const status = await fetch('session.json', { redirect: 'manual' }).then(
      (answer) => answer.status,
      () => 0,
    )
    if (status !== 401 && status !== 403) return
    this.#drop()
    this.#report({ name: 'denied' })
  }

  #drop(): void {
    clearTimeout(this.#timer)
    const socket = this.#socket
    this.#socket = undefined
    if (!socket) return
    socket.onmessage = socket.onclose = null
    socket.close()
  }

  #forget(): void {
    this.#session = ''
    this.#offset = 0
    sessionStorage.removeItem(STORED)
  }
}

type Message = { type: 'session'; id: string; offset: number } | { type: 'exit'; code: number }

function parse(text: string): Message | undefined {
  try {
    return JSON.parse(text) as Message
  } catch {
    return undefined
  }
}
