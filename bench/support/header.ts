/** What every saved number carries: machine, versions, commit, date. */
import { execFileSync } from 'node:child_process'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

function git(...args: string[]): string {
  try {
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return ''
  }
}

/** The first line of every JSONL file of results. `extra`: versions of whatever else took part. */
export function header(bench: string, extra: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const [cpu] = cpus()
  return {
    kind: 'header',
    bench,
    date: new Date().toISOString(),
    commit: git('rev-parse', '--short=12', 'HEAD') || null,
    // what is measured may differ from the commit
    modified: git('status', '--porcelain', '--untracked-files=no', 'src', 'wasm', 'bench') !== '',
    cpu: cpu?.model ?? null,
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    v8: process.versions.v8,
    ...extra,
  }
}

/** The header in one line for people. */
export function headerText(fields: Readonly<Record<string, unknown>>): string {
  const changes = fields['modified'] === true ? ' + changes' : ''
  const cpu = String(fields['cpu']).replaceAll(/\(\w+\)/g, '')
  const date = String(fields['date']).slice(0, 10)
  return `${date}, commit ${String(fields['commit'])}${changes}, ${cpu}, ${String(fields['cores'])} cores, Node ${String(fields['node'])}`
}
