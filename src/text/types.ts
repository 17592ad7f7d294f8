/** What a tokenizer is. Types only. */

/** How text becomes ids. */
export interface EncodeOptions {
  /** Add bos in front and eos behind where the file asks for them. Default true; pass false for text from a chat template. */
  readonly addSpecial?: boolean
  /**
   * Recognise control tokens written in the text. Default false, so that text from outside cannot forge them. Added tokens that
   * are not control tokens are always recognised: they belong to the vocabulary like any other.
   */
  readonly parseSpecial?: boolean
}

/** How ids become text. */
export interface DecodeOptions {
  /** Leave out control, unknown and unused tokens. Default true. */
  readonly skipSpecial?: boolean
  /**
   * The ids continue a text, such as an answer behind its prompt: a leading space is kept. Default false: the one space that
   * SentencePiece vocabularies add in front of a text is taken away again.
   */
  readonly continuation?: boolean
}

/** The tokenizer of one model file. Immutable; may be shared. */
export interface Tokenizer {
  /** Number of tokens. */
  readonly vocabulary: number
  readonly bos: number | undefined
  readonly eos: number | undefined
  /** Tokens that end an answer. */
  readonly endOfGeneration: ReadonlySet<number>
  /** Whether `encode` puts bos in front by default. */
  readonly addBos: boolean
  /** Whether `encode` puts a space in front of the text (SentencePiece). */
  readonly addSpacePrefix: boolean
  /** Ids of a text. Lone surrogates count as U+FFFD. Throws `ERR_TOKENIZER_INVALID` for a byte that the vocabulary has no token for. */
  encode(text: string, options?: EncodeOptions): number[]
  /** Text of ids; bytes that are not UTF-8 become U+FFFD. Throws `ERR_TOKEN_RANGE`. */
  decode(ids: readonly number[], options?: DecodeOptions): string
  /** Bytes that a token stands for, control tokens those of their name. Do not write to them. Throws `ERR_TOKEN_RANGE`. */
  tokenBytes(id: number): Uint8Array
  /** A token for display; U+FFFD for part of a character. Throws `ERR_TOKEN_RANGE`. */
  tokenText(id: number): string
  /** True for control, unknown and unused tokens: those that `decode` leaves out. */
  isControl(id: number): boolean
}
