/** Chat templates of three real models, looked for beside the repository; what they should give is read off their text. */
import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { createChatTemplate } from '../../src/text/chat-template.ts'
import type { ChatMessage, RenderOptions } from '../../src/text/chat-template.ts'
import { createTokenizer } from '../../src/text/tokenizer.ts'
import { byteLevelMetadata } from '../unit/text/vocabularies.ts'

const FOLDER = new URL('../../../shared/golden/templates/', import.meta.url)
const isPresent = existsSync(FOLDER)
if (!isPresent) console.warn(`SKIPPED: chat templates of real models; there is no ${FOLDER.pathname}`)

const tokenizer = createTokenizer(byteLevelMetadata())
const system = { role: 'system', content: 'Be brief.' }
const user = { role: 'user', content: 'Hi' }
const assistant = { role: 'assistant', content: 'Hello' }
const again = { role: 'user', content: 'Again' }
const add = { name: 'add', description: 'Adds.', parameters: { type: 'object', properties: { a: { type: 'integer' } } } }
const call = { role: 'assistant', content: '', tool_calls: [{ function: { name: 'add', arguments: { a: 1, b: 'x' } } }] }
const result = { role: 'tool', content: '3' }

function render(name: string, messages: readonly ChatMessage[], options?: RenderOptions): string {
  const source = readFileSync(new URL(name, FOLDER), 'utf8')
  return createChatTemplate(new Map([['tokenizer.chat_template', source]]), tokenizer)!.render(messages, options)
}

describe.skipIf(!isPresent)('GLM-4.6', () => {
  const glm = (messages: readonly ChatMessage[], options?: RenderOptions): string => render('GLM-4.6.jinja', messages, options)

  it('one question', () => {
    expect(glm([system, user])).toBe('[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>')
    expect(glm([user], { addGenerationPrompt: false })).toBe('[gMASK]<sop><|user|>\nHi')
  })

  it('several turns, the reasoning of earlier ones left out', () => {
    const thoughtful = { role: 'assistant', content: '<think>\nhm\n</think>\nHello' }
    const expected = '[gMASK]<sop><|user|>\nHi<|assistant|>\n<think></think>\nHello<|user|>\nAgain<|assistant|>'
    expect(glm([user, assistant, again])).toBe(expected)
    expect(glm([user, thoughtful, again])).toBe(expected)
  })

  it('without thinking', () => {
    expect(glm([user], { variables: { enable_thinking: false } })).toBe('[gMASK]<sop><|user|>\nHi/nothink<|assistant|>\n<think></think>')
  })

  it('content in parts', () => {
    const parts = [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ]
    expect(glm([{ role: 'user', content: parts }])).toBe('[gMASK]<sop><|user|>\nab<|assistant|>')
  })

  it('tools', () => {
    const text = glm([user], { tools: [{ name: 'wörld', n: [1, 2.5] }] })
    expect(text).toMatch(/^\[gMASK\]<sop><\|system\|>\n# Tools\n\nYou may call one or more functions/)
    expect(text).toContain('<tools>\n{"name": "wörld", "n": [1, 2.5]}\n</tools>\n\nFor each function call')
    expect(text).toMatch(/\.\.\.\n<\/tool_call><\|user\|>\nHi<\|assistant\|>$/)
    expect(glm([user, call, result])).toBe(
      '[gMASK]<sop><|user|>\nHi<|assistant|>\n<think></think>\n<tool_call>add\n' +
        '<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>x</arg_value>\n</tool_call>' +
        '<|observation|>\n<tool_response>\n3\n</tool_response><|assistant|>',
    )
  })
})

describe.skipIf(!isPresent)('Qwen3-Coder', () => {
  const qwen = (messages: readonly ChatMessage[], options?: RenderOptions): string => render('Qwen3-Coder.jinja', messages, options)

  it('turns', () => {
    expect(qwen([system, user, assistant, again])).toBe(
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n' +
        '<|im_start|>user\nAgain<|im_end|>\n<|im_start|>assistant\n',
    )
    expect(qwen([user], { addGenerationPrompt: false })).toBe('<|im_start|>user\nHi<|im_end|>\n')
  })

  it('tool calls and their results', () => {
    expect(qwen([user, call, result])).toBe(
      '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n' +
        '<parameter=b>\nx\n</parameter>\n</function>\n</tool_call><|im_end|>\n' +
        '<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<|im_end|>\n<|im_start|>assistant\n',
    )
  })

  it('tools', () => {
    const text = qwen([user], { tools: [{ type: 'function', function: add }] })
    expect(text.startsWith('<|im_start|>system\nYou are Qwen, a helpful AI assistant')).toBe(true)
    expect(text).toContain(
      '<tools>\n<function>\n<name>add</name>\n<description>Adds.</description>\n<parameters>\n<parameter>\n<name>a</name>\n' +
        '<type>integer</type>\n</parameter>\n</parameters>\n</function>\n</tools>',
    )
    expect(text.endsWith('</IMPORTANT><|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n')).toBe(true)
  })
})

describe.skipIf(!isPresent)('DeepSeek V3.1', () => {
  const deepseek = (messages: readonly ChatMessage[], options?: RenderOptions): string =>
    render('deepseek-ai-DeepSeek-V3.1.jinja', messages, options)

  it('turns, with bos from the vocabulary', () => {
    expect(deepseek([system, user])).toBe('<|bos|>Be brief.<｜User｜>Hi<｜Assistant｜><think></think>')
    expect(deepseek([user, { ...assistant, content: 'hm</think>Hello' }, again])).toBe(
      '<|bos|><｜User｜>Hi<｜Assistant｜><think></think>Hello<｜end▁of▁sentence｜><｜User｜>Again<｜Assistant｜><think></think>',
    )
  })

  it('thinking', () => {
    expect(deepseek([user], { variables: { thinking: true } })).toBe('<|bos|><｜User｜>Hi<｜Assistant｜><think>')
  })
})
