// Makes a fresh clone ready to run, with nothing but Node 18 or newer and npm: the packages of package-lock.json, and Node 26 from npm
// where the machine's own Node is older. Talks on stderr alone: stdout belongs to the command. When all is there it costs a few ms.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const WANTED_MAJOR = 26
/** The oldest Node that runs Tandem at all, at lower speed. */
const OLDEST = [22, 12]
/** A lock whose owner has not touched it for so long is left over from a process that was killed. */
const LOCK_STALE_MS = 15_000
const LOCK_TOUCH_MS = 1_000

/** Ends the command with one line that says what went wrong and what to do. */
export class SetUpError extends Error {}

const say = (text) => process.stderr.write(`tandem: ${text}\n`)
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'))

/**
 * True when node_modules holds what package-lock.json asks for. npm writes node_modules/.package-lock.json last, so an interrupted
 * installation has none. Optional packages may be missing: they are other platforms' binaries.
 */
function hasPackages(folder) {
  try {
    const wanted = readJson(join(folder, 'package-lock.json')).packages
    const installed = readJson(join(folder, 'node_modules', '.package-lock.json')).packages
    return Object.entries(wanted).every(([path, entry]) => {
      if (path === '') return true
      const found = installed[path]
      if (!found) return entry.optional === true
      const isSame = found.version === entry.version && (entry.integrity === undefined || found.integrity === entry.integrity)
      return isSame && existsSync(join(folder, path, 'package.json'))
    })
  } catch {
    return false
  }
}

const platformPackage = () => `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`
const machineMajor = () => Number(process.versions.node.split('.')[0])

/** Where Node 26 is or will be: `undefined` when npm has none for this platform, or the one it has does not run here (musl). */
function fetchedNode(root) {
  const folder = join(root, '.node')
  const name = platformPackage()
  if (!(name in readJson(join(folder, 'package.json')).optionalDependencies)) return undefined
  if (existsSync(join(folder, 'node_modules', 'does-not-run-here'))) return undefined
  return join(folder, 'node_modules', name, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
}

/** The machine's own Node, when it is new enough to stand in for Node 26. */
function machineNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  const isNewEnough = major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])
  if (!isNewEnough) {
    throw new SetUpError(
      `Node ${OLDEST.join('.')} or newer is needed, this is ${process.version} and npm has no Node ${WANTED_MAJOR} for ` +
        `${process.platform}-${process.arch}; install a newer Node from https://nodejs.org`,
    )
  }
  return process.execPath
}

const isReady = (root) => hasPackages(root) && (machineMajor() >= WANTED_MAJOR || nodeIsReady(root))

function nodeIsReady(root) {
  const node = fetchedNode(root)
  return node === undefined || (existsSync(node) && hasPackages(join(root, '.node')))
}

async function npmCi(folder, run) {
  const args = ['ci', '--include=dev', '--include=optional', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']
  // npm's own patience with a dead network is over a minute
  args.push('--fetch-retries=2', '--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=8000')
  const cli = process.env.npm_execpath
  const command = cli && basename(cli) === 'npm-cli.js' ? [process.execPath, cli] : [process.platform === 'win32' ? 'npm.cmd' : 'npm']
  const { code, output } = await run([...command, ...args], folder)
  if (code === 0) return
  const reason = /npm error code (\w+)/.exec(output)?.[1] ?? `exit code ${code}`
  throw new SetUpError(`npm ci failed in ${folder} (${reason}); check the network or the registry and run the same command again`)
}

async function install(root, run) {
  const started = Date.now()
  const done = () => say(`done after ${((Date.now() - started) / 1000).toFixed(0)} s`)
  if (!hasPackages(root)) {
    say('first run: installing the packages (npm ci)')
    await npmCi(root, run)
    done()
  }
  if (machineMajor() >= WANTED_MAJOR || nodeIsReady(root)) return
  const folder = join(root, '.node')
  say(`Node ${WANTED_MAJOR} is wanted and this is ${process.version}: fetching it from npm into .node/ (nothing outside the clone changes)`)
  try {
    await npmCi(folder, run)
  } catch (error) {
    machineNode() // throws when the machine's Node cannot stand in either: then nothing runs
    say(`${error.message}; going on with ${process.version}, more slowly`)
    return
  }
  const check = spawnSync(fetchedNode(root), ['--version'])
  if (check.status === 0) {
    done()
  } else {
    writeFileSync(join(folder, 'node_modules', 'does-not-run-here'), String(check.error ?? check.stderr))
    say(`the Node ${WANTED_MAJOR} from npm does not run on this system`)
  }
}

/** Two first commands at once must not install over each other: one works, the others wait for it. */
async function withLock(root, work) {
  const lock = join(root, '.cache', 'set-up.lock')
  mkdirSync(join(root, '.cache'), { recursive: true })
  for (let waits = 0; ; waits += 1) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' })
      break
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    if (isStale(lock)) rmSync(lock, { force: true })
    else if (waits === 0) say('waiting for another command that is setting this clone up')
    await sleep(100 + Math.random() * 100)
  }
  const release = () => rmSync(lock, { force: true })
  const touch = setInterval(() => utimesSync(lock, new Date(), new Date()), LOCK_TOUCH_MS)
  process.once('exit', release)
  try {
    return await work()
  } finally {
    clearInterval(touch)
    process.off('exit', release)
    release()
  }
}

function isStale(lock) {
  try {
    return Date.now() - statSync(lock).mtimeMs > LOCK_STALE_MS
  } catch {
    return false
  }
}

/**
 * Sets up what is missing and returns the Node to run with. `run(command, folder)` starts a program and resolves to
 * `{ code, output }`; it is the caller's so that signals reach whatever is running.
 */
export async function ensureSetUp(root, run) {
  if (!isReady(root)) await withLock(root, () => (isReady(root) ? undefined : install(root, run)))
  if (machineMajor() >= WANTED_MAJOR) return process.execPath
  const node = fetchedNode(root)
  return node !== undefined && existsSync(node) ? node : machineNode()
}
