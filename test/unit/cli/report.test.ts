import { CommanderError } from 'commander'
import { expect, test } from 'vitest'
import { errorLine, exitCodeOf } from '../../../src/cli/report.ts'
import { TandemError } from '../../../src/errors.ts'

test('an error is one line, whatever a file put into its message', () => {
  const error = new TandemError('ERR_GGUF_INVALID', 'the tensor "a\nb\u001B[2J" occurs twice')
  expect(errorLine(error)).toBe('error ERR_GGUF_INVALID: the tensor "a b [2J" occurs twice')
})

test.each([
  ['contextTokens must be a whole number', '--context must be a whole number'],
  ['topK: must be from 0', '--top-k: must be from 0'],
  ['kvTokens must be a whole number', '--kv-tokens must be a whole number'],
  ['the prompt is empty', 'the prompt is empty'],
])('%s is said with the option’s name', (message, line) => {
  expect(errorLine(new TandemError('ERR_ARGUMENT', message))).toBe(`error ERR_ARGUMENT: ${line}`)
})

test('something that is no TandemError is an internal error', () => {
  expect(errorLine(new TypeError('x is not a function'))).toBe('error ERR_INTERNAL: x is not a function')
})

test.each([
  [new TandemError('ERR_ARGUMENT', ''), 2],
  [new TandemError('ERR_MEMORY', ''), 1],
  [new Error('bug'), 1],
  [new CommanderError(1, 'commander.unknownOption', ''), 2],
  [new CommanderError(0, 'commander.helpDisplayed', ''), 0],
])('%s: exit %d', (error, code) => {
  expect(exitCodeOf(error)).toBe(code)
})
