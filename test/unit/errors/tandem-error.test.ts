import { expect, test } from 'vitest'
import { invariant, TandemError } from '../../../src/errors.ts'

const thrownBy = (action: () => void): unknown => {
  try {
    action()
  } catch (error) {
    return error
  }
  return undefined
}

test('an error carries code, message and cause', () => {
  const cause = new Error('below')
  const error = new TandemError('ERR_FILE_ACCESS', 'a.gguf: gone', { cause })
  expect(error).toBeInstanceOf(Error)
  expect(error).toMatchObject({ name: 'TandemError', code: 'ERR_FILE_ACCESS', message: 'a.gguf: gone', cause })
  expect(String(error)).toBe('TandemError: a.gguf: gone')
})

test('is() knows errors of another copy of the package', async () => {
  // a query makes Node load the same file as a second module: what two installed copies look like
  const copy = '../../../src/errors.ts?second-copy'
  const other = (await import(copy)) as typeof import('../../../src/errors.ts')
  const error = new other.TandemError('ERR_CLOSED', 'closed')
  expect(other.TandemError).not.toBe(TandemError)
  expect(error).not.toBeInstanceOf(TandemError)
  expect(TandemError.is(error)).toBe(true)
})

test.each([undefined, null, 'ERR_CLOSED', 7, {}, new Error('plain'), { code: 'ERR_CLOSED', message: 'closed' }])(
  'is() refuses %s',
  (value) => {
    expect(TandemError.is(value)).toBe(false)
  },
)

test('a record survives structuredClone, which an error does not', () => {
  const error = new TandemError('ERR_KERNEL', 'matmul: status 2')
  expect(TandemError.is(structuredClone(error))).toBe(false)
  const back = TandemError.fromRecord(structuredClone(error.toRecord()))
  expect(TandemError.is(back)).toBe(true)
  expect(back).toMatchObject({ code: 'ERR_KERNEL', message: 'matmul: status 2', stack: error.stack })
})

test('fromRecord() makes do without a stack', () => {
  const error = TandemError.fromRecord({ code: 'ERR_TIMEOUT', message: 'late' })
  expect(error).toMatchObject({ code: 'ERR_TIMEOUT', message: 'late' })
  expect(error.stack).toContain('late')
})

test('from() passes our errors through and wraps the rest', () => {
  const ours = new TandemError('ERR_MEMORY', 'too large')
  expect(TandemError.from(ours)).toBe(ours)
  const plain = new RangeError('out of range')
  expect(TandemError.from(plain)).toMatchObject({ code: 'ERR_INTERNAL', message: 'out of range', cause: plain })
  expect(TandemError.from('text', 'ERR_ARGUMENT')).toMatchObject({ code: 'ERR_ARGUMENT', message: 'text' })
})

test('invariant() throws ERR_INTERNAL, and only when the rule is broken', () => {
  expect(thrownBy(() => invariant(true, 'fine'))).toBeUndefined()
  expect(thrownBy(() => invariant(0, 'rule'))).toMatchObject({ code: 'ERR_INTERNAL', message: 'rule' })
})
