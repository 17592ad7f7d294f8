/** Which tokens end an answer. Metadata names up to three; models stop with more than that, so well-known names count too. */

/** Control tokens that end an answer or a turn, by family. */
const NAMES: readonly string[] = [
  ...['<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>', '[EOS]'], // end of the text, in most families
  ...['<|user|>', '<|observation|>'], // GLM: the next turn begins, so this one is over
  ...['<|im_end|>', '<|fim_pad|>', '<|repo_name|>', '<|file_sep|>'], // Qwen and other ChatML models
  ...['<|eot_id|>', '<|eom_id|>', '<|eot|>', '<|eom|>'], // Llama 3 and 4
  ...['<｜end▁of▁sentence｜>', '<|EOT|>'], // DeepSeek
  ...['<end_of_turn>', '<|end|>', '<|return|>', '<|call|>', '<EOT>', '_<EOT>', '[EOT]', '<end_of_utterance>'],
]

/**
 * Ids that end generation: those declared in the metadata and the control tokens with a well-known name.
 * `isSpecial` keeps ordinary tokens out, such as the HTML tag `</s>` in a byte-level vocabulary.
 */
export function endOfGenerationIds(
  ids: ReadonlyMap<string, number>,
  declared: readonly (number | undefined)[],
  isSpecial: (id: number) => boolean,
): Set<number> {
  const result = new Set(declared.filter((id) => id !== undefined))
  for (const name of NAMES) {
    const id = ids.get(name)
    if (id !== undefined && isSpecial(id)) result.add(id)
  }
  // In the o200k "harmony" format <|end|> closes one message of several; the answer ends with <|return|> or <|call|>.
  const end = ids.get('<|end|>')
  if (end !== undefined && ids.has('<|return|>') && ids.has('<|call|>') && !declared.includes(end)) result.delete(end)
  return result
}
