/** URLs of Redis: checked before anything connects, and shown without their password. */
import { TandemError } from '../errors.ts'

/** Where a queue is. */
export interface QueueAddress {
  /** The URL as it was given. */
  readonly url: string
  /** The same for people: no password. */
  readonly shown: string
  readonly host: string
  readonly port: number
  readonly username: string | undefined
  readonly password: string | undefined
  /** Number of the database. */
  readonly database: number
  readonly isTls: boolean
}

const FORM = 'redis://[user:password@]host[:port][/database], or rediss:// for TLS'
const DEFAULT_PORT = 6379

/** Parses `redis://user:password@host:6379/0`. Throws `ERR_ARGUMENT`, without the text: there may be a password in it. */
export function parseQueueUrl(url: string): QueueAddress {
  const wrong = (what: string): TandemError => new TandemError('ERR_ARGUMENT', `queue: ${what}; a URL is ${FORM}`)
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (!parsed) throw wrong('is not a URL')
  const { protocol, hostname, port, pathname, search, hash } = parsed
  if (protocol !== 'redis:' && protocol !== 'rediss:') throw wrong(`${protocol}// is not redis:// or rediss://`)
  if (hostname === '') throw wrong('there is no host in it')
  const [, database = ''] = /^\/?(\d*)$/.exec(pathname) ?? [undefined, 'none']
  if (database === 'none') throw wrong('what is behind the host must be the number of a database')
  if (search !== '' || hash !== '') throw wrong('it has a part that nobody reads (? or #; write %3F or %23 in a password)')
  const user = decoded(parsed.username, wrong)
  const where = `${hostname}:${port || DEFAULT_PORT}/${Number(database)}`
  return {
    url,
    shown: `${protocol}//${user === '' ? '' : `${user}@`}${where}`,
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(port || DEFAULT_PORT),
    username: user || undefined,
    password: decoded(parsed.password, wrong) || undefined,
    database: Number(database),
    isTls: protocol === 'rediss:',
  }
}

function decoded(text: string, wrong: (what: string) => TandemError): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw wrong('a % in the user or the password must be written %25')
  }
}
