/**
 * One job per output: a file beside it that says who has it. A process that was killed leaves it behind; whoever comes next sees that the
 * process is gone, or, from another machine, that nobody has touched the file for a minute, and takes it over.
 */
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { open, readFile, rename, rm, stat, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'

const TOUCH_MS = 10_000
const STALE_MS = 60_000
/** A lock that does not say whose it is will do so within a moment, or never: its maker was killed. */
const NAMELESS_STALE_MS = 1000
const NAMELESS_WAIT_MS = 200
/** Somebody else may come in between at every one; nobody comes this often. */
const ATTEMPTS = 12

/** A process that holds something. */
export interface Owner {
  readonly pid: number
  readonly host: string
  /** When the process was started, in the system's own units: numbers of processes are used again. */
  readonly started: string
  readonly nonce: string
}

/** A lock that is held. */
export interface Lock {
  release(): Promise<void>
}

/** This process, for a record that others read. */
export const thisProcess = (nonce: string): Owner => ({
  pid: process.pid,
  host: hostname(),
  started: startOf(process.pid) ?? '',
  nonce,
})

/** Whether a process has ended; undefined when it is on another machine, whose processes nobody here can see. */
export function hasEnded({ pid, host, started }: Owner): boolean | undefined {
  if (host !== hostname()) return undefined
  return !isAlive(pid) || (startOf(pid) ?? started) !== started
}

/** Locks an output. Throws `ERR_BATCH_OUTPUT` when another job has it, `ERR_FILE_ACCESS`. */
export async function lockOutput(output: string): Promise<Lock> {
  const path = `${output}.lock`
  const nonce = randomUUID()
  const owner = thisProcess(nonce)
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (await create(path, owner)) return held(path, nonce)
    const found = await readOwner(path)
    if (found === 'gone') continue
    if (await isStale(path, found)) await takeAway(path, found)
    else if (!found) await sleep(NAMELESS_WAIT_MS)
    else {
      const who = `process ${found.pid} on ${found.host}`
      throw new TandemError('ERR_BATCH_OUTPUT', `${output}: ${who} is writing it; wait for it, or remove ${path} if that is not true`)
    }
  }
  throw new TandemError('ERR_BATCH_OUTPUT', `${path}: other processes take the lock again and again`)
}

function held(path: string, nonce: string): Lock {
  const timer = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => undefined), TOUCH_MS)
  timer.unref()
  return {
    async release() {
      clearInterval(timer)
      const found = await readOwner(path)
      if (found !== 'gone' && found?.nonce === nonce) await rm(path, { force: true })
    },
  }
}

async function create(path: string, owner: Owner): Promise<boolean> {
  return access(path, async () => {
    try {
      const file = await open(path, 'wx')
      try {
        await file.writeFile(`${JSON.stringify(owner)}\n`)
      } finally {
        await file.close()
      }
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
      throw error
    }
  })
}

/** Undefined when the file does not say: its maker was killed, or is at it. */
async function readOwner(path: string): Promise<Owner | undefined | 'gone'> {
  try {
    const owner: unknown = JSON.parse(await readFile(path, 'utf8'))
    return typeof owner === 'object' && owner !== null && 'pid' in owner ? (owner as Owner) : undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'gone' : undefined
  }
}

async function isStale(path: string, owner: Owner | undefined): Promise<boolean> {
  const isOver = owner && hasEnded(owner)
  if (isOver !== undefined) return isOver
  const age = await stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => Infinity,
  )
  return age > (owner ? STALE_MS : NAMELESS_STALE_MS)
}

/** Moves the lock away; puts it back when it is not the one that was found stale. */
async function takeAway(path: string, stale: Owner | undefined): Promise<void> {
  const aside = `${path}.${randomUUID()}`
  try {
    await rename(path, aside)
  } catch {
    return // somebody was quicker
  }
  const taken = await readOwner(aside)
  if (taken !== 'gone' && taken?.nonce !== stale?.nonce) await rename(aside, path)
  else await rm(aside, { force: true })
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Field 22 of /proc/PID/stat, behind the name, which may hold spaces; undefined where the system does not tell. */
function startOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    // a zombie has ended, though its number is still taken
    return fields[0] === 'Z' ? 'ended' : fields[19]
  } catch {
    return undefined
  }
}
