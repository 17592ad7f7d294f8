/**
 * A vocabulary that works, without any text to train one on: the 256 bytes, merges of letters in the order of their frequency in
 * English, and GLM's special tokens. It tokenises every text; it does not do it well.
 */
import type { TypedMetadata, TypedValue } from '../gguf/write.ts'

/** `tokenizer.ggml.token_type`. */
const NORMAL = 1
const CONTROL = 3
const USER_DEFINED = 4
const UNUSED = 5

const CONTROL_TOKENS = ['[MASK]', '[gMASK]', '[sMASK]', '<sop>', '<eop>', '<|system|>', '<|user|>', '<|assistant|>', '<|observation|>']
const END_OF_TEXT = '<|endoftext|>'
const USER_TOKENS = ['<think>', '</think>']

const LETTERS = [...'etaoinshrdlcumwfgypbvkjxqz']

/** Every 1,024th token is a filler at the end, as in models whose vocabulary is padded. */
const UNUSED_SHARE = 1 / 1024

const CHAT_TEMPLATE =
  '[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{% endfor %}' +
  '{% if add_generation_prompt %}<|assistant|>\n{% endif %}'

/** The tokenizer's metadata for a vocabulary of `size` tokens, at least 300. */
export function vocabularyMetadata(size: number): TypedMetadata {
  const special = [END_OF_TEXT, ...CONTROL_TOKENS, ...USER_TOKENS]
  const fillers = Math.floor(size * UNUSED_SHARE)
  const merges = letterMerges(size - 256 - special.length - fillers)
  const learned = [...byteTokens(), ...merges.map((merge) => merge.replace(' ', ''))]
  const unused = size - learned.length - special.length
  const tokens = [
    ...learned,
    ...special,
    ...Array.from({ length: unused }, (_, index) => `[PAD${learned.length + special.length + index}]`),
  ]
  const types = [
    ...learned.map(() => NORMAL),
    ...special.map((token) => (USER_TOKENS.includes(token) ? USER_DEFINED : CONTROL)),
    ...Array.from({ length: unused }, () => UNUSED),
  ]
  const id = (token: string): TypedValue => ({ type: 'u32', value: learned.length + special.indexOf(token) })
  return new Map<string, TypedValue>([
    ['tokenizer.ggml.model', { type: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'glm4' }],
    ['tokenizer.ggml.tokens', { type: 'array', of: 'string', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'array', of: 'i32', value: types }],
    ['tokenizer.ggml.merges', { type: 'array', of: 'string', value: merges }],
    ['tokenizer.ggml.bos_token_id', id(END_OF_TEXT)],
    ['tokenizer.ggml.eos_token_id', id(END_OF_TEXT)],
    ['tokenizer.ggml.eot_token_id', id('<|user|>')],
    ['tokenizer.ggml.unknown_token_id', id(END_OF_TEXT)],
    ['tokenizer.ggml.padding_token_id', id(END_OF_TEXT)],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: false }],
    ['tokenizer.chat_template', { type: 'string', value: CHAT_TEMPLATE }],
  ])
}

/** The characters that stand for the bytes 0 to 255 in GPT-2's vocabularies: printable ones for themselves, the others from U+0100 on. */
function byteTokens(): string[] {
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173)
    return String.fromCodePoint(isPrintable ? byte : next++)
  })
}

/** At most `count` merges: space + letter, letter pairs, space + three letters, four letters. */
function letterMerges(count: number): string[] {
  // U+0120 stands for the space.
  const spaced = LETTERS.map((letter) => `\u0120 ${letter}`)
  const pairs = LETTERS.flatMap((first) => LETTERS.map((second) => `${first} ${second}`))
  const joinedPairs = pairs.map((pair) => pair.replace(' ', ''))
  const merges = [...spaced, ...pairs]
  for (const first of [...LETTERS.map((letter) => `\u0120${letter}`), ...joinedPairs]) {
    if (merges.length >= count) break
    merges.push(...joinedPairs.map((second) => `${first} ${second}`))
  }
  return merges.slice(0, Math.max(0, count))
}
