// A TCP relay between Chromium and the server, or between gateway and app, which can be cut: what a lost network does to who is behind it.
//
// It passes bytes and knows nothing of them, so TLS and HTTP/2 stay between the two.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { Transform } from 'node:stream'

// `url` says where the server is; its host is on this machine.
export async function through(url, port = 0) {
  const target = { host: '127.0.0.1', port: Number(url.port || (url.protocol === 'https:' ? 443 : 80)) }
  const pairs = new Set()
  let whole = true
  let opened = 0
  let held // bytes that wait, as what lets each go on

  const gate = () => new Transform({ transform: (bytes, _, done) => (held ? held.push(() => done(null, bytes)) : done(null, bytes)) })
  const server = createServer((near) => {
    if (!whole) return near.resetAndDestroy()
    opened += 1
    const far = connect(target)
    const pair = [near, far]
    pairs.add(pair)
    for (const end of pair) {
      end.setNoDelay(true)
      end.on('error', () => undefined) // `close` follows
      end.on('close', () => {
        pairs.delete(pair)
        for (const other of pair) other.destroy()
      })
    }
    near.pipe(gate()).pipe(far).pipe(gate()).pipe(near)
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')

  const reset = () => {
    for (const pair of pairs) for (const end of pair) end.resetAndDestroy()
  }
  return {
    port: server.address().port,
    // Resets every connection and lets no new one through.
    cut() {
      whole = false
      reset()
    },
    // Keeps every connection, takes new ones, and passes nothing.
    hold() {
      held = []
    },
    mend() {
      const waiting = held ?? []
      whole = true
      held = undefined
      waiting.forEach((goOn) => goOn())
    },
    // How many connections there have been.
    opened: () => opened,
    close() {
      reset()
      server.close()
    },
  }
}
