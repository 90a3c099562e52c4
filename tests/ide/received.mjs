// What an IDE got from the gateway, as the relay in front of it wrote it down.

import { readFileSync } from 'node:fs'
import { assert } from '../browser/support/browser.mjs'

export class Received {
  #file

  constructor(file) {
    this.#file = file
  }

  text() {
    return readFileSync(this.#file, 'latin1')
  }

  // The heads of requests, each as one text.
  heads() {
    return this.text().match(/^(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) \/\S* HTTP\/1\.1\r\n(?:[^\r\n]+\r\n)*/gm) ?? []
  }

  // The values of a cookie, in all requests.
  cookies(name) {
    const pairs = this.heads().flatMap((head) => [...head.matchAll(/^cookie: (.*)$/gim)]).flatMap((field) => field[1].trim().split('; '))
    return pairs.filter((pair) => pair.startsWith(`${name}=`)).map((pair) => pair.slice(name.length + 1))
  }

  // Neither ticket nor session came this far.
  assertNothingOfOurs(ticket) {
    const text = this.text()
    const signature = ticket.split('.').at(-1)
    for (const ours of ['__Host-gitspace', 'gitspace_token', signature]) {
      assert(!text.includes(ours), `${ours.slice(0, 20)} reached the IDE`)
    }
    return `${this.heads().length} requests`
  }
}
