/** One version of the protocol per Redis database: who comes with another one hears of it before any work. */
import { TandemError } from '../errors.ts'
import type { QueueConnection } from './connection.ts'
import { PROTOCOL_KEY } from './keys.ts'
import { Registry } from './registry.ts'
import { PROTOCOL } from './task-message.ts'

/** Throws `ERR_QUEUE_VERSION` while workers or jobs of another version are there; without them the database becomes ours. */
export async function checkProtocol({ redis, shown }: QueueConnection): Promise<void> {
  const ours = String(PROTOCOL)
  if ((await redis.set(PROTOCOL_KEY, ours, 'NX')) === 'OK') return
  const theirs = await redis.get(PROTOCOL_KEY)
  if (theirs === ours) return
  const [workers, jobs] = await Promise.all([Registry.workers(redis).all(), Registry.jobs(redis).all()])
  if (workers.size + jobs.size > 0) {
    const versions = [...new Set([...workers.values(), ...jobs.values()].map(({ version }) => version))].join(', ')
    throw new TandemError(
      'ERR_QUEUE_VERSION',
      `${shown}: is used by Tandem ${versions} with protocol ${theirs}, this is protocol ${ours}; use one version everywhere, or another database`,
    )
  }
  await redis.set(PROTOCOL_KEY, ours)
}
