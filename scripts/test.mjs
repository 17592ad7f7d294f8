// `npm test`: everything a change must pass, one line per step, a step's own output only when it fails.
// With arguments, they go to vitest and the other steps are left out: `npm test -- test/unit/ring`.
import { spawn } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const results = join(root, '.cache', 'test-results.json')
const node = process.execPath
const tool = (path) => join(root, 'node_modules', path)

const STEPS = [
  { name: 'lint', args: [tool('oxlint/bin/oxlint'), '--deny-warnings'] },
  { name: 'format', args: [tool('oxfmt/bin/oxfmt'), '--check', '.'], repair: 'npm run format' },
  { name: 'types', args: [tool('typescript/bin/tsc'), '--noEmit'] },
  { name: 'import directions', args: [join(root, 'scripts/check-imports.mjs')] },
  { name: 'unused code', args: [tool('knip/bin/knip.js'), '--no-progress'] },
  { name: 'line limits', args: [join(root, 'scripts/check-lines.mjs')] },
]

let current
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    current?.kill(signal)
    process.exitCode = signal === 'SIGINT' ? 130 : 143
  })
}

/** Runs one step to its end; resolves to its exit code and what it printed (nothing when it is shown as it comes). */
function execute(args, stdio) {
  return new Promise((resolve, reject) => {
    const child = spawn(node, args, { cwd: root, stdio })
    const output = []
    current = child
    child.stdout?.on('data', (chunk) => output.push(chunk))
    child.stderr?.on('data', (chunk) => output.push(chunk))
    child.on('error', reject)
    child.on('close', (code) => resolve({ code: code ?? 1, output: Buffer.concat(output).toString() }))
  })
}

async function check({ name, args, repair }) {
  const started = performance.now()
  const { code, output } = await execute(args, ['ignore', 'pipe', 'pipe'])
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  process.stdout.write(`${code === 0 ? 'ok    ' : 'FAILED'}  ${name} (${seconds} s)\n`)
  if (code !== 0) process.stdout.write(`${output.trimEnd()}\n${repair ? `(${repair} repairs it)\n` : ''}`)
  return code === 0
}

const failed = []
const vitestArgs = process.argv.slice(2)
if (vitestArgs.length === 0) {
  for (const step of STEPS) {
    if (process.exitCode !== undefined) process.exit()
    if (!(await check(step))) failed.push(step.name)
  }
}
rmSync(results, { force: true })
mkdirSync(dirname(results), { recursive: true })
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${results}`]
const unit = await execute([tool('vitest/vitest.mjs'), 'run', ...reporters, ...vitestArgs], 'inherit')
if (unit.code !== 0) failed.push('tests')
if (process.exitCode === undefined) {
  process.stdout.write(failed.length === 0 ? 'everything passed\n' : `failed: ${failed.join(', ')}\n`)
  process.exitCode = failed.length === 0 ? 0 : 1
}
