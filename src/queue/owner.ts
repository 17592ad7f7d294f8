/** One producer per job: a key that its process renews. One that a dead process of this machine has left is taken over at once. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { hasEnded, type Owner, thisProcess } from '../batch/lock.ts'
import { TandemError } from '../errors.ts'
import type { QueueConnection } from './connection.ts'
import { ownerKey } from './keys.ts'

const LIFE_MS = 15_000
const RENEW_MS = 4000
/** A producer on another machine that was killed is gone after this long. */
const WAIT_MS = LIFE_MS + 2000
const POLL_MS = 300

/** Sets the key for `ARGV[2]` ms, or deletes it for 0, unless somebody else has it. */
const RENEW = `
local value = redis.call('get', KEYS[1])
if value and value ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('del', KEYS[1]) else redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1`

/** A job that is held. */
export interface Ownership {
  release(): Promise<void>
}

/**
 * Takes a job. `onLost` hears when somebody else has taken it, which happens to a producer that could not reach Redis for long.
 * Throws `ERR_QUEUE_JOB` when another producer has it.
 */
export async function takeJob(
  { redis, failed }: QueueConnection,
  job: string,
  onLost: (error: TandemError) => void,
  onTalk: (line: string) => void = () => undefined,
): Promise<Ownership> {
  const key = ownerKey(job)
  const own = JSON.stringify(thisProcess(randomUUID()))
  const renew = async (value: string, lifeMs: number): Promise<boolean> => (await redis.eval(RENEW, 1, key, value, lifeMs)) === 1
  const deadline = performance.now() + WAIT_MS
  let hasTalked = false
  while (!(await renew(own, LIFE_MS))) {
    failed.throwIfAborted()
    const found = await redis.get(key)
    const owner = found === null ? undefined : parseOwner(found)
    const isOver = owner && hasEnded(owner)
    if (found !== null && isOver) await renew(found, 0)
    const who = owner ? `process ${owner.pid} on ${owner.host}` : 'another producer'
    if (isOver === false || performance.now() > deadline) {
      throw new TandemError('ERR_QUEUE_JOB', `${who} produces the job ${job} already; wait for it, or choose another --job`)
    }
    if (isOver) continue
    if (!hasTalked) onTalk(`${who} has the job ${job}; waiting whether it is still alive`)
    hasTalked = true
    await sleep(POLL_MS)
  }
  const keep = async (): Promise<void> => {
    const isOurs = await renew(own, LIFE_MS)
    if (!isOurs) onLost(new TandemError('ERR_QUEUE_JOB', `another producer has taken the job ${job} over`))
  }
  // a Redis that is away has its own deadline
  const timer = setInterval(() => void keep().catch(() => undefined), RENEW_MS)
  return {
    async release() {
      clearInterval(timer)
      if (!failed.aborted) await renew(own, 0)
    },
  }
}

function parseOwner(text: string): Owner | undefined {
  try {
    const owner: unknown = JSON.parse(text)
    return typeof owner === 'object' && owner !== null && 'pid' in owner && 'host' in owner ? (owner as Owner) : undefined
  } catch {
    return undefined
  }
}
