import { describe, expect, it } from 'vitest'
import { createChatTemplate } from '../../../src/text/chat-template.ts'
import type { ChatTemplate } from '../../../src/text/chat-template.ts'
import { strftime } from '../../../src/text/strftime.ts'
import { createTokenizer } from '../../../src/text/tokenizer.ts'
import { byteLevelMetadata } from './vocabularies.ts'

const tokenizer = createTokenizer(byteLevelMetadata())
const noon = new Date(2026, 2, 5, 12, 7, 9)
const template = (source: string): ChatTemplate =>
  createChatTemplate(new Map([['tokenizer.chat_template', source]]), tokenizer, () => noon)!
const hi = [{ role: 'user', content: 'Hi' }]
const isTemplateError = (message: string): unknown =>
  expect.objectContaining({ code: 'ERR_TEMPLATE', message: expect.stringContaining(message) })

describe('chat template', () => {
  it('renders messages, with the words that begin the answer by default', () => {
    const chat = template(
      "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    )
    expect(chat.render(hi)).toBe('<|bos|>[user]Hi<|end|>[assistant]')
    expect(chat.render(hi, { addGenerationPrompt: false })).toBe('<|bos|>[user]Hi<|end|>')
    expect(chat.render([])).toBe('<|bos|>[assistant]')
  })

  it('trims blocks as transformers does', () => {
    expect(template('  {% if true %}\na\n  {% endif %}\nb').render(hi)).toBe('a\nb')
  })

  it('passes variables and tools, and leaves tools undefined without any', () => {
    const chat = template('{{ tools is defined }} {{ mood }} {% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}')
    expect(chat.render(hi, { variables: { mood: 'calm' } })).toBe('false calm ')
    expect(chat.render(hi, { variables: { mood: 1 }, tools: [{ name: 'add', on: true }] })).toBe('true 1 {"name": "add", "on": true}')
  })

  it('reports what a template raises, and what it does wrong', () => {
    expect(() => template("{{ raise_exception('Roles must alternate') }}").render(hi)).toThrow(isTemplateError('Roles must alternate'))
    expect(() => template('{{ 1 + nothing }}').render(hi)).toThrow(isTemplateError('undefined'))
    expect(() => template('{% for %}')).toThrow(isTemplateError('chat template:'))
    expect(() => template('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}').render(hi)).toThrow(isTemplateError(''))
  })

  it('stops a template that would run for hours or write without end', () => {
    const loops = '{% for a in range(1000) %}'.repeat(3) + '{% set x = 1 %}' + '{% endfor %}'.repeat(3)
    expect(() => template(loops).render(hi)).toThrow(isTemplateError('still not done'))
    expect(() => template('{% for a in range(10000000000) %}{% endfor %}').render(hi)).toThrow(isTemplateError('range()'))
    expect(() => template('{{ range(0, 5, 0) }}').render(hi)).toThrow(isTemplateError('range()'))
    expect(() => template('x'.repeat(1_000_001))).toThrow(isTemplateError('1000001 characters'))
  })

  it('can be rendered again after a failure', () => {
    const chat = template("{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}ok")
    expect(() => chat.render([...hi, ...hi])).toThrow(isTemplateError('one only'))
    expect(chat.render(hi)).toBe('ok')
  })

  it('has range, dates and constants', () => {
    expect(template('{{ range(3) | join(",") }} {{ range(1, 7, 2) | join(",") }} {{ range(2, 0, -1) | join(",") }}').render(hi)).toBe(
      '0,1,2 1,3,5 2,1',
    )
    expect(template("{{ strftime_now('%d %B %Y') }}").render(hi)).toBe('05 March 2026')
    expect(template('{{ True and not False }} {{ none is none }}').render(hi)).toBe('true true')
    expect(strftime(noon, '%Y-%m-%d %H:%M:%S %I%p %a %A %b %y %-d %% %Q')).toBe('2026-03-05 12:07:09 12PM Thu Thursday Mar 26 5 % %Q')
  })

  it('refuses messages that are none', () => {
    const chat = template('x')
    for (const bad of [null, 'Hi', [null], [{ content: 'Hi' }], [{ role: 1 }]]) {
      expect(() => chat.render(bad as never)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }))
    }
  })

  it('is absent when the file has none', () => {
    expect(createChatTemplate(new Map(), tokenizer)).toBeUndefined()
    expect(() => createChatTemplate(new Map([['tokenizer.chat_template', 1]]), tokenizer)).toThrow(isTemplateError('not a string'))
  })

  it('does not touch prototypes', () => {
    expect(template('{{ messages.__proto__ is defined }}{{ messages.constructor is defined }}').render(hi)).toBe('falsefalse')
  })
})
