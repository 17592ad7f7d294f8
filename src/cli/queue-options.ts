/** Options of the commands that meet at a queue, and the connection that they make. */
import { type Command, Option } from 'commander'
import { TandemError } from '../errors.ts'
import type { QueueConnection } from '../queue/connection.ts'
import type { Io } from './io.ts'
import { whole } from './values.ts'

/** What commander makes of the options. */
export interface QueueFlags {
  readonly queue?: string
  readonly reconnect: number
}

const RECONNECT_SECONDS = 30

/** Adds them. The URL may come from the environment: arguments are for every user of the machine to see, and there is a password in it. */
export function addQueueOptions(command: Command, what: string): Command {
  return command
    .addOption(new Option('--queue <url>', what).env('TANDEM_QUEUE'))
    .option('--reconnect <seconds>', 'longest that Redis may be away', whole(1, 86_400), RECONNECT_SECONDS)
}

export const addModelId = (command: Command): Command =>
  command.option('--model-id <id>', "what producers and workers call the model (default: its name and its file's digest)")

/** Connects, works, and closes the connection whatever happens. Throws `ERR_QUEUE_CONNECTION`, `ERR_ARGUMENT`. */
export async function withQueue<Result>(
  { queue: url, reconnect }: QueueFlags,
  io: Io,
  work: (connection: QueueConnection) => Promise<Result>,
): Promise<Result> {
  if (url === undefined) throw new TandemError('ERR_ARGUMENT', 'queue: must be given, such as --queue redis://host:6379')
  const { QueueConnection: Connection } = await import('../queue/connection.ts')
  const connection = await Connection.open({ url, reconnectMs: reconnect * 1000, onTalk: (line) => io.talk(line), signal: io.signal })
  try {
    return await work(connection)
  } catch (error) {
    // commands that the lost connection has cut short say no more than that
    if (connection.failed.aborted && !TandemError.is(error)) throw connection.failed.reason
    throw error
  } finally {
    connection.close()
  }
}
