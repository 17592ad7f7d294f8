/** Lines to tasks: both forms, what is refused and by which field, and no input that makes it throw. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isBlank, parseLine } from '../../../src/batch/parse-line.ts'
import { isRefusal } from '../../../src/batch/task.ts'

const line = (text: string | undefined) => ({ number: 7, text, end: 0, isWhole: true })
const parse = (value: unknown) => parseLine(line(JSON.stringify(value)))
const openai = (url: string, body: unknown) => parse({ custom_id: 'a', method: 'POST', url, body })
const chat = (body: object) => openai('/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }], ...body })

describe('plain lines', () => {
  test('a prompt, a conversation, token ids; ids are texts or whole numbers', () => {
    expect(parse({ id: 'x', prompt: 'hi' })).toEqual({ form: 'plain', id: 'x', line: 7, prompt: 'hi', options: {} })
    expect(parse({ id: 3, messages: [{ role: 'user', content: 'hi' }] })).toMatchObject({
      id: 3,
      prompt: [{ role: 'user', content: 'hi' }],
    })
    expect(parse({ id: 'x', prompt: [1, 2] })).toMatchObject({ prompt: [1, 2] })
  })

  test('options in either spelling', () => {
    const options = { maxTokens: 5, topP: 0.5, topK: 3, stop: ['x'], seed: 1, temperature: 2, raw: true }
    expect(parse({ id: 'x', prompt: 'p', ...options })).toMatchObject({ options })
    const { maxTokens: max_tokens, topP: top_p, topK: top_k, ...rest } = options
    expect(parse({ id: 'x', prompt: 'p', max_tokens, top_p, top_k, ...rest, stop: 'x' })).toMatchObject({ options })
  })

  test.each([
    [{ prompt: 'p' }, 'id'],
    [{ id: '', prompt: 'p' }, 'id'],
    [{ id: 1.5, prompt: 'p' }, 'id'],
    [{ id: 'x' }, 'prompt'],
    [{ id: 'x', prompt: 5 }, 'prompt'],
    [{ id: 'x', prompt: ['a', 'b'] }, 'prompt'],
    [{ id: 'x', prompt: 'p', messages: [{ role: 'user', content: 'hi' }] }, 'messages'],
    [{ id: 'x', messages: [] }, 'messages'],
    [{ id: 'x', prompt: 'p', raw: 1 }, 'raw'],
    [{ id: 'x', prompt: 'p', wat: 1 }, 'wat'],
    [{ id: 'x', prompt: 'p', constructor: 1 }, 'constructor'],
  ])('%j is refused by its field', (value, field) => {
    expect(parse(value)).toMatchObject({ field, message: expect.stringContaining(`${field}: `) as string, line: 7 })
  })
})

describe("OpenAI's lines", () => {
  test('chat and completions', () => {
    expect(chat({ temperature: 0.5, top_p: 0.9, seed: 3, stop: ['a', 'b'], max_completion_tokens: 9, max_tokens: 12 })).toEqual({
      form: 'chat',
      id: 'a',
      line: 7,
      prompt: [{ role: 'user', content: 'hi' }],
      options: { temperature: 0.5, topP: 0.9, seed: 3, stop: ['a', 'b'], maxTokens: 9 },
    })
    for (const prompt of ['go on', ['go on']]) {
      expect(openai('/v1/completions', { prompt })).toMatchObject({ form: 'completion', prompt: 'go on', options: { raw: true } })
    }
    expect(openai('/v1/completions', { prompt: [[1, 2, 3]] })).toMatchObject({ prompt: [1, 2, 3] })
  })

  test('parts of text are joined, and what asks for nothing is ignored', () => {
    const content = [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ]
    expect(chat({ messages: [{ role: 'user', content, name: 'n' }] })).toMatchObject({
      prompt: [{ role: 'user', content: 'ab', name: 'n' }],
    })
    const nothing = {
      model: 'm',
      n: 1,
      stream: false,
      user: 'u',
      stop: null,
      logprobs: false,
      tools: [],
      response_format: { type: 'text' },
    }
    expect(chat({ ...nothing, frequency_penalty: 0, logit_bias: {}, metadata: { a: 'b' }, max_tokens: null })).toMatchObject({
      options: {},
    })
  })

  test.each([
    ['n', 2],
    ['stream', true],
    ['logprobs', true],
    ['tools', [{}]],
    ['response_format', { type: 'json_object' }],
    ['logit_bias', { 5: 1 }],
    ['presence_penalty', 0.1],
    ['temperature', 'hot'],
    ['temperature', -1],
    ['top_p', 1.5],
    ['seed', 1.5],
    ['max_tokens', -1],
    ['stop', ''],
    ['stop', [1]],
    ['prompt', 'x'],
    ['wat', true],
    ['messages[0]', undefined],
  ])('%s: %j is refused by name', (field, value) => {
    expect(chat(field === 'messages[0]' ? { messages: [5] } : { [field]: value })).toMatchObject({ field, id: 'a', form: 'chat' })
  })

  test.each([
    [{ custom_id: 5 }, 'custom_id'],
    [{ method: 'GET' }, 'method'],
    [{ url: '/v1/embeddings' }, 'url'],
    [{ url: undefined }, 'url'],
    [{ url: '__proto__' }, 'url'],
    [{ body: undefined }, 'body'],
    [{ body: [] }, 'body'],
    [{ body: { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] } }, 'messages[0].content[0]'],
    [{ body: { messages: [{ content: 'x' }] } }, 'messages[0].role'],
  ])('%j is refused by name', (change, field) => {
    const good = { custom_id: 'a', method: 'POST', url: '/v1/chat/completions', body: { messages: [{ role: 'user', content: 'x' }] } }
    expect(parse({ ...good, ...change })).toMatchObject({ field })
  })
})

test.each(['{', '5', 'null', '[]', '"x"', '{"id":"a","prompt":"b"} x'])('%s is no task', (text) => {
  expect(parseLine(line(text))).toMatchObject({ form: 'unknown', id: undefined, line: 7 })
})

test('blank lines are told from wrong ones', () => {
  expect(['', ' \t\r'].map((text) => isBlank(line(text)))).toEqual([true, true])
  expect([isBlank(line('x')), isBlank(line(undefined))]).toEqual([false, false])
})

test('whatever a line holds, it is a task or a refusal with a message', () => {
  const keys = [
    'id',
    'prompt',
    'messages',
    'custom_id',
    'method',
    'url',
    'body',
    'n',
    'stop',
    'temperature',
    'max_tokens',
    'role',
    'content',
  ]
  const values = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom<unknown>(null, true, 0, 1, -1, 1.5, 1e300, '', 'x', '/v1/chat/completions', '/v1/completions', 'POST'),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...keys, '__proto__'), tie('value'), { maxKeys: 6 }),
    ),
  }))
  const check = (text: string): void => {
    const parsed = parseLine(line(text))
    expect(parsed.line).toBe(7)
    if (isRefusal(parsed)) expect(parsed.message).not.toBe('')
    else expect(parsed.id).toBeDefined()
  }
  fc.assert(
    fc.property(values.value, (value) => check(JSON.stringify(value))),
    { seed: 7, numRuns: 3000 },
  )
  fc.assert(fc.property(fc.string({ unit: 'binary' }), check), { seed: 7 })
})
