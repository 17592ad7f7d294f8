/** URLs of Redis: what is understood, what is refused, and that no password is shown. */
import { expect, test } from 'vitest'
import { parseQueueUrl } from '../../../src/queue/url.ts'

test.each([
  [
    'redis://host',
    { host: 'host', port: 6379, database: 0, isTls: false, username: undefined, password: undefined, shown: 'redis://host:6379/0' },
  ],
  ['rediss://host:1234/5', { host: 'host', port: 1234, database: 5, isTls: true, shown: 'rediss://host:1234/5' }],
  ['redis://:secret@host/', { username: undefined, password: 'secret', database: 0, shown: 'redis://host:6379/0' }],
  ['redis://me:p%40ss%25@host/2', { username: 'me', password: 'p@ss%', database: 2, shown: 'redis://me@host:6379/2' }],
  ['redis://[::1]:6380', { host: '::1', port: 6380, shown: 'redis://[::1]:6380/0' }],
])('%s', (url, expected) => {
  expect(parseQueueUrl(url)).toMatchObject(expected)
})

test.each([
  'host:6379',
  'nonsense',
  '',
  'http://:secret@host',
  'redis://',
  'redis://:secret@host/name',
  'redis://:secret@host/1/2',
  'redis://:secret@host?db=1',
  'redis://:sec#ret@host',
  'redis://:secret%@host',
  'redis://:secret@host:99999',
])('%s is refused, and nothing of it is told', (url) => {
  const attempt = (): unknown => parseQueueUrl(url)
  expect(attempt).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/^queue: (?!.*sec)/) as string }))
})
