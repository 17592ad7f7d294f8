/** What all machines can see of a Redis: its jobs and its workers. */
import type { QueueConnection } from './connection.ts'
import { checkName, ownerKey, queueOf } from './keys.ts'
import { type JobRecord, Registry, type WorkerRecord } from './registry.ts'
import { jobOfEntry } from './task-message.ts'

/** A job. */
export interface JobStatus extends JobRecord {
  readonly job: string
  /** Whether its producer is alive. */
  readonly isProduced: boolean
  /** Lines in Redis: not begun, with a worker, and answered but not yet in the output. */
  readonly waiting: number
  readonly active: number
  readonly answered: number
  /** Workers with its model. */
  readonly workers: number
}

/** Everything. */
export interface QueueStatus {
  readonly jobs: readonly JobStatus[]
  readonly workers: readonly (WorkerRecord & { readonly worker: string })[]
}

const STATES = { waiting: ['wait'], active: ['active'], answered: ['completed', 'failed'] } as const

/** Reads it all. */
export async function queueStatus(connection: QueueConnection): Promise<QueueStatus> {
  const { redis } = connection
  const [jobs, workers] = await Promise.all([Registry.jobs(redis).all(), Registry.workers(redis).all()])
  const models = new Map<string, Awaited<ReturnType<typeof countLines>>>()
  for (const { modelId } of jobs.values()) if (!models.has(modelId)) models.set(modelId, await countLines(connection, modelId))
  const statuses = [...jobs].map(async ([job, record]) => ({
    job,
    ...record,
    isProduced: (await redis.exists(ownerKey(job))) === 1,
    ...(models.get(record.modelId)?.get(job) ?? NONE),
    workers: [...workers.values()].filter(({ modelId }) => modelId === record.modelId).length,
  }))
  return { jobs: await Promise.all(statuses), workers: [...workers].map(([worker, record]) => ({ worker, ...record })) }
}

interface Counts {
  waiting: number
  active: number
  answered: number
}

const NONE: Readonly<Counts> = { waiting: 0, active: 0, answered: 0 }

/** Lines of a model's queue, by job. */
async function countLines(connection: QueueConnection, modelId: string): Promise<Map<string, Counts>> {
  const queue = queueOf(connection, modelId)
  const counts = new Map<string, Counts>()
  try {
    for (const state of ['waiting', 'active', 'answered'] as const) {
      for (const name of await queue.getRanges([...STATES[state]], 0, -1)) {
        const job = jobOfEntry(name)
        const found = counts.get(job) ?? { ...NONE }
        found[state]++
        counts.set(job, found)
      }
    }
  } finally {
    await queue.close()
  }
  return counts
}

/** Takes a job's lines out of Redis, those that workers have left out. Returns how many; undefined when there is no such job. */
export async function removeJob(connection: QueueConnection, job: string): Promise<number | undefined> {
  checkName('job', job)
  const registry = Registry.jobs(connection.redis)
  const record = (await registry.all()).get(job)
  if (!record) return undefined
  const queue = queueOf(connection, record.modelId)
  try {
    const names = await queue.getRanges(['wait', 'completed', 'failed'], 0, -1)
    const removed = await Promise.all(names.filter((name) => jobOfEntry(name) === job).map((name) => queue.remove(name)))
    await registry.remove(job)
    return removed.filter((count) => count > 0).length
  } finally {
    await queue.close()
  }
}
