/**
 * How each family of byte-level vocabularies cuts text into words before merging; the GGUF key `tokenizer.ggml.pre` names the row.
 *
 * The patterns are facts of the models, as published in their `tokenizer.json` files (and for `default`, in llama.cpp, which made the
 * name up). They are written for JavaScript: `\s` there is not Unicode's white space (it has U+FEFF and lacks U+0085), so `pattern`
 * replaces it; ignoring case is spelled out, because Node 22 has no `(?i:...)`.
 */
import { TandemError } from '../errors.ts'

/** One row: the patterns are applied one after the other, each to the pieces that the ones before it left. */
export interface PreTokenizer {
  readonly patterns: readonly RegExp[]
  /** True when a word that is itself a token is taken whole, whatever the merges say. */
  readonly ignoreMerges: boolean
  /** Whether bos is added when the file does not say. */
  readonly addBos: boolean
}

const raw = String.raw
const pattern = (source: string): RegExp =>
  new RegExp(source.replaceAll('\\s', '\\p{White_Space}').replaceAll('\\S', '\\P{White_Space}'), 'gu')

const row = (patterns: readonly string[], options: Partial<PreTokenizer> = {}): PreTokenizer => ({
  patterns: patterns.map(pattern),
  ignoreMerges: false,
  addBos: false,
  ...options,
})

const CONTRACTIONS = raw`'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]`
const GPT2 = raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
const REST = raw` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

/** The cl100k pattern; families differ in how many digits make a word. */
const cl100k = (digits: string): string => raw`(?:${CONTRACTIONS})|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}|${REST}`

const WORD_START = raw`[^\r\n\p{L}\p{N}]?`
const UPPER = raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
const LOWER = raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
const O200K = raw`${WORD_START}${UPPER}*${LOWER}+(?:${CONTRACTIONS})?|${WORD_START}${UPPER}+${LOWER}*(?:${CONTRACTIONS})?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`

/** The letters of DeepSeek's first pattern, as code points: the cased letters of an older Unicode, so no property says the same. */
const DEEPSEEK_LETTERS = `
  41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C 38E-3A1 3A3-3F5 3F7-481 48A-52F
  531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D
  1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC
  2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4
  2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A
  10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943`
  .trim()
  .replaceAll(/\s+/g, ' ')
  .replaceAll(/[0-9A-F]+/g, (hex) => raw`\u{${hex}}`)
  .replaceAll(' ', '')

const CJK = raw`[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+`

const GLM = row([cl100k(raw`\p{N}{1,3}`)])
const QWEN2 = row([cl100k(raw`\p{N}`)])
const LLAMA3 = row([cl100k(raw`\p{N}{1,3}`)], { ignoreMerges: true, addBos: true })
const GPT_4O = row([O200K])

const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  default: row([raw`[\p{P}\$\+<=>\^~\|]+`, GPT2, raw`\p{N}+`, '[0-9][0-9][0-9]']),
  'gpt-2': row([GPT2]),
  glm4: GLM,
  'chatglm-bpe': GLM,
  qwen2: QWEN2,
  'deepseek-r1-qwen': QWEN2,
  qwen35: row([raw`(?:${CONTRACTIONS})|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`]),
  'llama-bpe': LLAMA3,
  llama3: LLAMA3,
  'llama-v3': LLAMA3,
  // `(?<!\s)` only keeps a long run of spaces from being tried from each of its positions: the leftmost match starts a run anyway.
  'deepseek-llm': row([
    raw`[\r\n]`,
    raw`\s?[${DEEPSEEK_LETTERS}]+`,
    raw`\s?[!-\/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+`,
    raw`(?<!\s)\s+$`,
    CJK,
    raw`\p{N}+`,
  ]),
  'deepseek-coder': row([raw`[\r\n]`, raw`\s?\p{L}+`, raw`\s?\p{P}+`, CJK, raw`\p{N}`]),
  'deepseek-v3': row([
    raw`\p{N}{1,3}`,
    raw`[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+`,
    raw`[!-\/:-@\[-\x60\{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  ]),
  'gpt-4o': GPT_4O,
  llama4: GPT_4O,
  o200k: GPT_4O,
}

/** The row for a `tokenizer.ggml.pre` value. Throws `ERR_TOKENIZER_UNSUPPORTED` for one that is not in the table. */
export function preTokenizer(name: string): PreTokenizer {
  const found = Object.hasOwn(PRE_TOKENIZERS, name) ? PRE_TOKENIZERS[name] : undefined
  if (found !== undefined) return found
  const known = Object.keys(PRE_TOKENIZERS).join(', ')
  throw new TandemError('ERR_TOKENIZER_UNSUPPORTED', `pre-tokenizer '${name}' is not supported; the known ones are ${known}`)
}

/**
 * Cuts text into words. Nothing is lost: the words concatenated are the text.
 * Throws `ERR_ARGUMENT` for a word of many millions of characters, which the regular expressions cannot hold on their stack.
 */
export function splitWords(text: string, patterns: readonly RegExp[]): string[] {
  try {
    return split(text, patterns)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new TandemError('ERR_ARGUMENT', `text: a word in these ${text.length} characters is too long to be encoded`, { cause: error })
  }
}

function split(text: string, patterns: readonly RegExp[]): string[] {
  let pieces = text === '' ? [] : [text]
  for (const each of patterns) {
    const next: string[] = []
    for (const piece of pieces) {
      let end = 0
      for (const match of piece.matchAll(each)) {
        if (match.index > end) next.push(piece.slice(end, match.index))
        next.push(match[0])
        end = match.index + match[0].length
      }
      if (end < piece.length) next.push(piece.slice(end))
    }
    pieces = next
  }
  return pieces
}
