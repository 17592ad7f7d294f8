// Bars: what is drawn when, and that a person at a terminal sees them and nobody else does.
import { spawn, spawnSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ProgressLine } from '../../../src/cli/progress-bar.ts'
import { temporaryDirectory } from '../../fixtures/build-gguf.ts'
import { busyModel, MAIN } from './cli-process.ts'

const CLEAR = '\r\u001B[K'

describe('the line of a terminal', () => {
  const written: string[] = []
  const stream = { columns: 60, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream
  let line: ProgressLine
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    written.length = 0
    line = new ProgressLine(stream)
  })
  afterEach(() => void vi.useRealTimers())

  /** What has been written since the last call. */
  const taken = (): string => written.splice(0).join('')

  test('has nothing before the delay, then the label, then how far it is, and nothing after the end', () => {
    const bar = line.begin('loading', 300, true)
    vi.advanceTimersByTime(290)
    expect(taken()).toBe('')
    vi.advanceTimersByTime(200)
    expect(taken()).toBe(`${CLEAR}loading ...`)
    bar.update(3, 12, 'tokens')
    vi.advanceTimersByTime(100)
    expect(taken()).toBe(`${CLEAR}loading [======                  ] 25 %, 3 of 12 tokens`)
    bar.update(3, 12, 'tokens', 'verifying')
    vi.advanceTimersByTime(100)
    expect(taken()).toContain('verifying [')
    bar.end()
    bar.end()
    expect(taken()).toBe(CLEAR)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('is not written again while it stays as it is, and comes back behind other output', () => {
    const bar = line.begin('waiting', 0, true)
    vi.advanceTimersByTime(1000)
    expect(taken()).toBe(`${CLEAR}waiting ...`)
    line.clear()
    line.clear()
    expect(taken()).toBe(CLEAR)
    vi.advanceTimersByTime(100)
    expect(taken()).toBe(`${CLEAR}waiting ...`)
    bar.end()
  })

  test('shows the latest of several waits, and the outer one when the inner has ended', () => {
    const outer = line.begin('outer', 0, true)
    const inner = line.begin('inner', 0, true)
    vi.advanceTimersByTime(100)
    expect(taken()).toBe(`${CLEAR}inner ...`)
    inner.end()
    vi.advanceTimersByTime(100)
    expect(taken()).toBe(`${CLEAR}${CLEAR}outer ...`)
    outer.end()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('is never longer than the terminal is wide', () => {
    line.begin('x'.repeat(200), 0, true)
    vi.advanceTimersByTime(100)
    expect(taken()).toBe(CLEAR + 'x'.repeat(59))
  })

  test('does not exist for a bar that is not shown', () => {
    line.begin('quiet', 0, false).end()
    expect(vi.getTimerCount()).toBe(0)
    expect(taken()).toBe('')
  })
})

const hasScript = spawnSync('script', ['--version']).status === 0

/** What a terminal of its own shows of a command, up to `end` or for so long. */
async function terminal(command: string, end: RegExp, longestMs: number, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    env: { ...process.env, TERM: 'xterm', ...env },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const timer = setTimeout(() => child.kill(), longestMs)
  let shown = ''
  child.stdout.on('data', (chunk: Buffer) => {
    shown += chunk.toString()
    if (end.test(shown)) child.kill()
  })
  await new Promise((resolve) => void child.on('close', resolve))
  clearTimeout(timer)
  return shown
}

test.skipIf(!hasScript)(
  'a person at a terminal sees what is waited for; not with --quiet, and not where a line cannot be taken back',
  async () => {
    await using directory = await temporaryDirectory()
    const model = await busyModel(`${directory.path}/busy.gguf`)
    const text = `${directory.path}/long.txt`
    await writeFile(text, 'A long text that keeps the model busy for a good while. '.repeat(2000))
    const command = `exec '${process.execPath}' '${MAIN}' perplexity '${model}' -f '${text}' --threads 1`
    const end = /evaluating \[=* *\] \d+ %, \d+ of \d+ tokens/
    const [bars, quiet, dumb] = await Promise.all([
      terminal(command, end, 20_000),
      terminal(`${command} -q`, end, 4000),
      terminal(command, end, 4000, { TERM: 'dumb' }),
    ])
    expect(bars).toMatch(end)
    expect({ quiet, dumb }).toEqual({ quiet: '', dumb: '' })
  },
  30_000,
)
