/** Token ids that every engine gets alike. */
import { random } from '../../test/conformance/reference.ts'

/** `count` random ids; the last tenth of a vocabulary, where control tokens are, is left out. */
export function randomTokens(count: number, vocabulary: number, seed: number): number[] {
  const next = random(seed)
  return Array.from({ length: count }, () => Math.floor(next() * vocabulary * 0.9))
}
