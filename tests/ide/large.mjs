// large.mjs URL FILE BYTES --shots DIR: a notebook of so many bytes is opened in JupyterLab through the gateway, changed and saved.
//
// URL: the notebook, with JupyterLab's `token` and our ticket. FILE: the notebook on this machine.

import { readFileSync, statSync } from 'node:fs'
import { assert, test, until } from '../browser/support/browser.mjs'

const FIRST_START = 120_000

test(['URL', 'FILE', 'BYTES'], async ({ page, url, steps, positionals }) => {
  const step = steps.step.bind(steps)
  const [, file, bytes] = positionals
  const size = () => statSync(file).size
  const cell = page.locator('.jp-NotebookPanel .jp-CodeCell .cm-content').first()
  const sent = []
  page.on('response', (answer) => {
    const saves = answer.request().method() === 'PUT' && new URL(answer.url()).pathname === '/api/contents/large.ipynb'
    if (saves) sent.push(answer.status())
  })

  await step('it opens', async () => {
    assert(size() >= Number(bytes), `it has ${size()} bytes`)
    await page.goto(url.href, { waitUntil: 'domcontentloaded' })
    await cell.waitFor({ timeout: FIRST_START })
    await page.getByText('a large output').first().waitFor()
    return `${(size() / 1e6).toFixed(1)} MB`
  }, 'opened')

  await step('a change of it is saved whole', async () => {
    const before = statSync(file).mtimeMs
    await cell.click()
    await page.keyboard.press('Control+a')
    await page.keyboard.type('changed = 6*7')
    const began = Date.now()
    await page.keyboard.press('Control+s')
    await until('the answer', () => sent.length > 0, undefined, FIRST_START)
    const took = Date.now() - began
    assert(sent.every((status) => status === 200), `it is answered ${sent}`)
    assert(statSync(file).mtimeMs > before && size() >= Number(bytes), `it has ${size()} bytes`)
    const { cells } = JSON.parse(readFileSync(file, 'utf8'))
    assert([cells[0].source].flat().join('') === 'changed = 6*7', `it says ${cells[0].source}`)
    return `${(size() / 1e6).toFixed(1)} MB in ${(took / 1000).toFixed(1)} s`
  }, 'saved')
})
