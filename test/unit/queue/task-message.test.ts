/** Tasks and outcomes as messages: nothing is lost on the way, and what nobody of ours has written is refused. */
import { expect, test } from 'vitest'
import { parseLine } from '../../../src/batch/parse-line.ts'
import { type BatchTask, isRefusal } from '../../../src/batch/task.ts'
import { decodeOutcome, decodeTask, encodeTask, entryId, jobOfEntry, PROTOCOL } from '../../../src/queue/task-message.ts'

function taskOf(line: unknown): BatchTask {
  const task = parseLine({ number: 7, text: JSON.stringify(line), end: 0, isWhole: true })
  if (isRefusal(task)) throw new Error(task.message)
  return task
}

const lines = [
  { id: 'a', prompt: 'hello' },
  { id: 3, prompt: [1, 2, 3], maxTokens: 5, temperature: 0.5, topK: 4, topP: 0.9, minP: 0.1, seed: 7, stop: ['x', 'y'], raw: true },
  { id: 'c', messages: [{ role: 'user', content: 'hi', name: 'me' }], repetition_penalty: 1.1, repetition_window: 9 },
  {
    custom_id: 'd',
    url: '/v1/chat/completions',
    body: { messages: [{ role: 'user', content: [{ type: 'text', text: 'part' }] }], max_tokens: 3 },
  },
  { custom_id: 'e', url: '/v1/completions', body: { prompt: 'go on', stop: 'end' } },
]

test.each(lines)('$id$custom_id arrives as it was', (line) => {
  const task = taskOf(line)
  // through JSON, as Redis has it
  const { task: arrived, digest } = decodeTask(JSON.parse(JSON.stringify(encodeTask(task, 'abc'))))
  expect({ id: arrived.id, prompt: arrived.prompt, options: arrived.options }).toEqual({
    id: task.id,
    prompt: task.prompt,
    options: task.options,
  })
  expect(digest).toBe('abc')
})

test('an entry has the same name in every run, and another one for another task, job or model', () => {
  const [a, b] = [taskOf(lines[0]), taskOf(lines[4])]
  const name = entryId('job', encodeTask(a, 'abc'))
  expect(entryId('job', encodeTask({ ...a, line: 99 }, 'abc'))).toBe(name)
  const others = [entryId('job', encodeTask(b, 'abc')), entryId('other', encodeTask(a, 'abc')), entryId('job', encodeTask(a, undefined))]
  const withOptions = entryId('job', encodeTask({ ...a, options: { maxTokens: 1 } }, 'abc'))
  expect(new Set([name, withOptions, ...others]).size).toBe(5)
  expect(jobOfEntry(name)).toBe('job')
})

test.each([
  null,
  17,
  {},
  { protocol: PROTOCOL + 1, digest: null, line: '{"id":"a","prompt":"b"}' },
  { protocol: PROTOCOL, digest: null, line: 5 },
  { protocol: PROTOCOL, digest: 5, line: '{"id":"a","prompt":"b"}' },
  { protocol: PROTOCOL, digest: null, line: '{"id":"a"}' },
  { protocol: PROTOCOL, digest: null, line: 'rubbish' },
])('%j is no task', (message) => {
  expect(() => decodeTask(message)).toThrow(expect.objectContaining({ code: 'ERR_QUEUE_VERSION' }))
})

const finish = { finishReason: 'stop', promptTokens: 1, reusedTokens: 0, tokens: 2 }

test.each([
  { text: 'a', finish, model: 'm', preemptions: 2 },
  { error: { code: 'ERR_CONTEXT_OVERFLOW', message: 'too long' }, preemptions: 0 },
])('%j is an outcome', (outcome) => {
  expect(decodeOutcome(JSON.parse(JSON.stringify(outcome)))).toEqual(outcome)
})

test.each([
  null,
  'text',
  {},
  { text: 'a', finish: { ...finish, tokens: -1 }, model: 'm' },
  { text: 5, finish, model: 'm' },
  { error: { code: 'NONE', message: '' } },
])('%j is none', (value) => {
  expect(() => decodeOutcome(value)).toThrow(expect.objectContaining({ code: 'ERR_QUEUE_VERSION' }))
})
