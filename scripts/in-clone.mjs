// The one entrance of a clone's npm scripts: sets the clone up when needed (set-up.mjs), then runs a command under the right Node.
//
//   node scripts/in-clone.mjs tandem ARGUMENTS     the command line, from its sources
//   node scripts/in-clone.mjs run FILE ARGUMENTS   any script or tool of the repository
//
// Plain JavaScript without dependencies: it is what runs before there are any. stdout and stdin belong to the command.
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureSetUp, SetUpError } from './set-up.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** A terminal sends Ctrl-C to every process of the group and npm passes it on again: what comes within this time is one signal. */
const SAME_SIGNAL_MS = 500

let running
let interrupted = 0

// Signals are the command's to answer: it closes cleanly and chooses the exit code, this process only waits for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  let last = -Infinity
  process.on(signal, () => {
    interrupted = 128 + constants.signals[signal]
    if (performance.now() - last < SAME_SIGNAL_MS) return
    last = performance.now()
    if (!running?.kill(signal)) process.exit(interrupted)
  })
}

/** Runs a program to its end. Nothing of npm's may reach stdout, so with `capture` its output is kept for the error message. */
function execute([program, ...args], { cwd, env, capture = false }) {
  return new Promise((resolve, reject) => {
    const stdio = capture ? ['ignore', 'pipe', 'pipe'] : 'inherit'
    const child = spawn(program, args, { cwd, env, stdio, shell: program.endsWith('.cmd') })
    const output = []
    running = child
    child.stdout?.on('data', (chunk) => output.push(chunk))
    child.stderr?.on('data', (chunk) => output.push(chunk))
    child.on('error', reject)
    child.on('close', (code, signal) => {
      running = undefined
      resolve({ code: code ?? 128 + (constants.signals[signal] ?? 0), output: Buffer.concat(output).toString() })
    })
  })
}

async function runForSetUp(command, folder) {
  const result = await execute(command, { cwd: folder, env: process.env, capture: true }).catch((error) => {
    throw new SetUpError(`${command[0]} cannot be started (${error.code}); npm is needed once, to install the packages`)
  })
  if (interrupted) process.exit(interrupted)
  return result
}

/** Node before 22.18 strips types only when asked to; all before 26 call it experimental on stderr. */
function nodeFlags(node) {
  if (node !== process.execPath || Number(process.versions.node.split('.')[0]) >= 26) return []
  const flags = ['--disable-warning=ExperimentalWarning']
  return process.features.typescript ? flags : ['--experimental-strip-types', ...flags]
}

async function main([verb, ...args]) {
  if ((verb !== 'tandem' && verb !== 'run') || (verb === 'run' && args.length === 0)) {
    process.stderr.write('usage: node scripts/in-clone.mjs tandem ARGUMENTS | run FILE ARGUMENTS\n')
    return 2
  }
  const node = await ensureSetUp(root, runForSetUp)
  const target = verb === 'tandem' ? [join(root, 'src/cli/main.ts'), ...args] : [join(root, args[0]), ...args.slice(1)]
  // npm moves to the clone's root, but a person's relative paths start where they typed the command
  const cwd = verb === 'tandem' && process.env.npm_lifecycle_event ? (process.env.INIT_CWD ?? process.cwd()) : process.cwd()
  // what the command starts by the name `node` must be the same Node
  const env = { ...process.env, PATH: `${dirname(node)}${delimiter}${process.env.PATH ?? ''}` }
  return (await execute([node, ...nodeFlags(node), ...target], { cwd, env })).code
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`error ERR_SETUP: ${error instanceof SetUpError ? error.message : error.stack}\n`)
  process.exitCode = interrupted || 1
}
