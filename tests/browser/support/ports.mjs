// Ports for programs that are told on which to listen; which they may be, tests/harness/ports.py knows.

import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const PROGRAM = fileURLToPath(new URL('../../harness/ports.py', import.meta.url))

export function freePorts(count) {
  return execFileSync(PROGRAM, [String(count)], { encoding: 'utf8' }).trim().split(' ').map(Number)
}
