/**
 * Logs for a person: `NODE_DEBUG=tandem:load`, or `tandem:*` for all of them, on stderr.
 *
 *     const debug = debugLog('load')
 *     debug?.(`${bytes} bytes`)          off, there is no log and nothing is computed
 */
import { writeSync } from 'node:fs'
import { debuglog } from 'node:util'
import { isMainThread, threadId } from 'node:worker_threads'

/** What can be asked for. */
export type DebugSection = 'load' | 'kernels' | 'pool' | 'cuda' | 'engine' | 'batch'

/** Writes a line. */
export type Debug = (message: string) => void

/** The log of a section; undefined unless it was asked for when the process started. */
export function debugLog(section: DebugSection): Debug | undefined {
  const log = debuglog(`tandem:${section}`)
  if (!log.enabled) return undefined
  if (isMainThread) return (message) => log('%s', message)
  // a worker's stderr is written by its event loop, to which the threads of an executor do not return
  const head = `TANDEM:${section.toUpperCase()} ${process.pid}.${threadId}:`
  return (message) => {
    try {
      writeSync(2, `${head} ${message}\n`)
    } catch {
      // nobody reads it, or not fast enough: a log is not worth an error
    }
  }
}

/** Time since `start`, as of `performance.now()`. */
export const msSince = (start: number): string => `${(performance.now() - start).toFixed(1)} ms`

/** Between two lines about many events, ms. */
const SELDOM_MS = 1000

/** A log of what happens often: a line at most once a second, with how often it has happened since the last one. */
export function seldom(debug: Debug | undefined, line: (count: number) => string): (() => void) | undefined {
  if (!debug) return undefined
  let count = 0
  let lineAt = -Infinity
  return () => {
    count++
    const now = performance.now()
    if (now - lineAt < SELDOM_MS) return
    debug(line(count))
    count = 0
    lineAt = now
  }
}
