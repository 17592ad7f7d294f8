/** `tandem batch --producer`: the lines go to workers through a queue, and their answers come back into the output. */
import { hash } from 'node:crypto'
import { hostname } from 'node:os'
import { basename, resolve } from 'node:path'
import type { BatchJob } from '../batch/job.ts'
import type { BatchProgress, BatchSummary } from '../batch/progress.ts'
import type { QueueConnection } from '../queue/connection.ts'
import { asName } from '../queue/keys.ts'
import { identifyModel, type ModelIdentity } from '../queue/model-identity.ts'
import { QueueProducer } from '../queue/producer.ts'
import { modelPath } from './engine-options.ts'
import type { Io } from './io.ts'

/** What commander makes of the options. */
export interface ProducerFlags {
  readonly job?: string
  readonly modelId?: string
  readonly queueLines: number
}

const SHOWN_DIGITS = 6

/** A job is called after its output: the same on the same machine in every run. */
const nameOf = (output: string): string =>
  `${asName(basename(output))}-${hash('sha256', `${hostname()} ${resolve(output)}`, 'hex').slice(0, SHOWN_DIGITS)}`

/** What the producer's model is; where only an id is given, no file is looked at. */
const identify = async (model: string | undefined, { modelId }: ProducerFlags): Promise<ModelIdentity> =>
  model === undefined && modelId !== undefined ? { modelId, digest: undefined } : identifyModel(modelPath(model), modelId)

/** The part of a producer that lives as long as the command. */
export class BatchProducer {
  readonly #connection: QueueConnection
  readonly #model: ModelIdentity
  readonly #flags: ProducerFlags
  readonly #io: Io
  #producer: QueueProducer | undefined

  private constructor(connection: QueueConnection, model: ModelIdentity, flags: ProducerFlags, io: Io) {
    this.#connection = connection
    this.#model = model
    this.#flags = flags
    this.#io = io
  }

  /** Throws the codes of model files. */
  static async open(connection: QueueConnection, model: string | undefined, flags: ProducerFlags, io: Io): Promise<BatchProducer> {
    return new BatchProducer(connection, await identify(model, flags), flags, io)
  }

  report(progress: BatchProgress): void {
    this.#producer?.report(progress)
  }

  /** Throws what `QueueProducer.open` and `BatchJob.runWith` throw. */
  async run(batch: BatchJob, output: string): Promise<BatchSummary> {
    const { job = nameOf(output), queueLines: lines } = this.#flags
    const onTalk = (line: string): void => this.#io.talk(line)
    const producer = await QueueProducer.open(this.#connection, { job, model: this.#model, output: resolve(output), lines, onTalk })
    this.#producer = producer
    let summary: BatchSummary | undefined
    try {
      onTalk(`job ${job} at ${this.#connection.shown}`)
      summary = await batch.runWith(producer)
      return summary
    } finally {
      await producer.close(summary)
    }
  }
}
