/**
 * A connection to Redis that never keeps anybody waiting for ever.
 *
 *     open: tries again for a moment, unless trying again is of no use --> up <--> lost: connects again by itself
 *                                                                          |         | for longer than the deadline
 *                                                                          +-> close |-> the signal `failed` fires, nothing is tried any more
 */
import { TandemError } from '../errors.ts'
import { type Packages, packages, type Redis } from './packages.ts'
import { parseQueueUrl, type QueueAddress } from './url.ts'

/** How to connect. */
export interface ConnectionOptions {
  /** `redis://user:password@host:6379/0`, or `rediss://` for TLS. */
  readonly url: string
  /** Longest that Redis may be away, ms. Default 30,000. */
  readonly reconnectMs?: number | undefined
  /** Hears what a person should know. */
  readonly onTalk?: ((line: string) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

const CONNECT_MS = 3000
const CONNECT_PAUSE_MS = 200
const RECONNECT_MS = 30_000
/** A server that does not close its end is not waited for longer. */
const DISCONNECT_MS = 300
const RETRY_MS = 500
/** How often an answer is asked for; a server that hangs is as bad as one that is not there. */
const PING_MS = 1000
/** Errors of a server that may be there in a moment. */
const PASSING = /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|EAI_AGAIN|LOADING)/
/** Older ones lack commands that BullMQ uses. */
const OLDEST_REDIS = [6, 2] as const

/** See the file's header. */
export class QueueConnection {
  readonly redis: Redis
  /** The URL without its password. */
  readonly shown: string
  readonly packages: Packages
  readonly #failed = new AbortController()
  readonly #reconnectMs: number
  readonly #talk: (line: string) => void
  #answeredAt = performance.now()
  #isAsking = false
  #wasOverdue = false
  #isUp = true
  #watch: NodeJS.Timeout | undefined

  private constructor(parts: { redis: Redis; packages: Packages }, { shown }: QueueAddress, options: ConnectionOptions) {
    this.redis = parts.redis
    this.packages = parts.packages
    this.shown = shown
    this.#reconnectMs = options.reconnectMs ?? RECONNECT_MS
    this.#talk = options.onTalk ?? (() => undefined)
  }

  /** Throws `ERR_QUEUE_CONNECTION`, `ERR_ARGUMENT`, `ERR_ABORTED`. */
  static async open(options: ConnectionOptions): Promise<QueueConnection> {
    const address = parseQueueUrl(options.url)
    const loaded = await packages()
    // a connection that closes before `isOpen` is somebody's wrong password; later on it is a server that restarts
    const state = { isOpen: false, connection: undefined as QueueConnection | undefined }
    const redis = new loaded.Redis({
      ...(({ host, port, username, password }) => ({ host, port, username, password }))(address),
      ...(address.isTls ? { tls: { servername: address.host } } : {}),
      db: address.database,
      lazyConnect: true,
      connectTimeout: CONNECT_MS,
      disconnectTimeout: DISCONNECT_MS,
      // BullMQ's wish: a command waits for the connection, for which there is a deadline here
      maxRetriesPerRequest: null,
      retryStrategy: () => (state.isOpen && !state.connection?.failed.aborted ? RETRY_MS : null),
    })
    try {
      await connect(redis, address, options.signal)
      const connection = new QueueConnection({ redis, packages: loaded }, address, options)
      state.isOpen = true
      state.connection = connection
      await connection.#check()
      connection.#listen()
      return connection
    } catch (error) {
      if (redis.status !== 'end') redis.disconnect()
      throw error
    }
  }

  /** Fires with an `ERR_QUEUE_CONNECTION` when Redis has been away for too long. */
  get failed(): AbortSignal {
    return this.#failed.signal
  }

  /** Whether Redis is connected, and was not given up. */
  get isUp(): boolean {
    return this.#isUp && !this.failed.aborted
  }

  /** Ends the connection; what waits for an answer is rejected. May be called again. */
  close(): void {
    clearInterval(this.#watch)
    if (!this.failed.aborted) this.#failed.abort(new TandemError('ERR_CLOSED', 'the connection to the queue has been closed'))
    // between two attempts `disconnect` would leave commands waiting for ever: the next attempt is the last one and rejects them
    if (this.redis.status !== 'reconnecting' && this.redis.status !== 'end') this.redis.disconnect()
  }

  /** What the server says of itself, which it may refuse to do. */
  async #check(): Promise<void> {
    const info = await this.redis.info().catch(() => '')
    const [major = 0, minor = 0] = (/^redis_version:([\d.]+)/m.exec(info)?.[1] ?? '').split('.').map(Number)
    if (major > 0 && (major < OLDEST_REDIS[0] || (major === OLDEST_REDIS[0] && minor < OLDEST_REDIS[1]))) {
      throw new TandemError(
        'ERR_QUEUE_CONNECTION',
        `${this.shown}: Redis ${major}.${minor} is too old, ${OLDEST_REDIS.join('.')} is needed`,
      )
    }
    const policy = /^maxmemory_policy:([\w-]+)/m.exec(info)?.[1]
    if (policy !== undefined && policy !== 'noeviction') {
      this.#talk(`${this.shown}: its maxmemory-policy is ${policy}, so it may throw lines away when memory is short; set noeviction`)
    }
  }

  #listen(): void {
    this.redis.on('close', () => this.#setUp(false))
    this.redis.on('ready', () => this.#setUp(true))
    this.#watch = setInterval(() => this.#ask(), PING_MS)
  }

  #setUp(isUp: boolean): void {
    if (this.failed.aborted && isUp) this.redis.disconnect()
    if (this.failed.aborted || isUp === this.#isUp) return
    this.#isUp = isUp
    const seconds = Math.round(this.#reconnectMs / 1000)
    this.#talk(isUp ? `${this.shown}: connected again` : `${this.shown}: the connection is lost; trying again for ${seconds} s`)
  }

  #ask(): void {
    const away = performance.now() - this.#answeredAt
    const isOverdue = this.#isAsking && away > this.#reconnectMs
    // a process that was suspended has its answer by the next time
    if (isOverdue && !this.#wasOverdue) this.#wasOverdue = true
    else if (isOverdue) {
      const message = `${this.shown}: no answer for ${Math.round(away / 1000)} s; start again when Redis is back, nothing is lost`
      this.#failed.abort(new TandemError('ERR_QUEUE_CONNECTION', message))
      this.close()
    }
    if (this.#isAsking) return
    this.#isAsking = true
    const answered = (): void => {
      this.#isAsking = false
      this.#wasOverdue = false
      this.#answeredAt = performance.now()
    }
    this.redis.ping().then(answered, () => undefined)
  }
}

/** Connects, or says why that cannot be. */
async function connect(redis: Redis, address: QueueAddress, signal: AbortSignal | undefined): Promise<void> {
  const { shown } = address
  let cause: Error & { code?: string } = new Error('it does not answer')
  redis.on('error', (error) => (cause = error))
  const deadline = performance.now() + CONNECT_MS
  for (;;) {
    if (signal?.aborted) throw new TandemError('ERR_ABORTED', `${shown}: connecting was aborted`, { cause: signal.reason })
    try {
      await within(deadline - performance.now(), async () => {
        await redis.connect()
        // a database that is not there is told here, and nowhere else
        await redis.select(address.database)
      })
      return
    } catch (error) {
      const reason = (error as Error).message
      if (reason !== 'Connection is closed.') cause = error as Error
      const isPassing = PASSING.test(cause.code ?? cause.message)
      if (!isPassing || performance.now() + CONNECT_PAUSE_MS > deadline) throw refused(address, cause)
    }
    await new Promise((resolve) => setTimeout(resolve, CONNECT_PAUSE_MS))
  }
}

async function within(ms: number, work: () => Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(Object.assign(new Error('it does not answer'), { code: 'ETIMEDOUT' })), Math.max(0, ms))
  })
  try {
    await Promise.race([work(), late])
  } finally {
    clearTimeout(timer)
  }
}

function refused({ shown, isTls, host }: QueueAddress, cause: Error & { code?: string }): TandemError {
  const { code = '', message } = cause
  const told = (what: string): TandemError => new TandemError('ERR_QUEUE_CONNECTION', `${shown}: ${what}`, { cause })
  if (/^(WRONGPASS|NOAUTH|NOPERM|ERR (AUTH|invalid password))/.test(message)) return told('the user or the password is not accepted')
  if (code === 'ECONNREFUSED') return told('nothing listens there; is Redis running?')
  if (code === 'ENOTFOUND') return told(`there is no host ${host}`)
  if (/^ERR DB index|^ERR invalid DB/i.test(message)) return told('there is no database of that number')
  if (code.startsWith('ERR_TLS') || code.startsWith('ERR_SSL') || /certificate/i.test(message)) return told(`TLS failed: ${message}`)
  const hint = isTls ? 'does it speak TLS (rediss://)?' : 'does it want TLS (rediss://)?'
  return told(`${message.replace(/^connect ETIMEDOUT$/, 'it does not answer')}; ${hint}`)
}
