/**
 * Random words, the same on every machine: integer arithmetic only, seeded by text. Generator: sfc32 (small fast counting),
 * https://pracrand.sourceforge.net/RNG_engines.txt
 */

/** Fills `words` with uniform random 32-bit words that depend on `key` alone. */
export function fillRandom(words: Uint32Array, key: string): void {
  let a = hash(key, 0x811c9dc5)
  let b = hash(key, 0x9e3779b9)
  let c = hash(key, 0x85ebca6b)
  let counter = 1
  // The first rounds only mix the key; 12 are what the generator's author uses.
  for (let index = -12; index < words.length; index += 1) {
    const sum = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + sum) | 0
    if (index >= 0) words[index] = sum
  }
}

/** FNV-1a over UTF-16 units, with a free starting value. */
function hash(text: string, start: number): number {
  let value = start
  for (let index = 0; index < text.length; index += 1) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  return value | 0
}

const FLOAT = new Float32Array(1)
const FLOAT_BITS = new Uint32Array(FLOAT.buffer)

/** The bits of the half-precision number nearest to `value`, ties to even. Node 22 has no Float16Array. */
export function toHalf(value: number): number {
  FLOAT[0] = value
  const bits = FLOAT_BITS[0]!
  const sign = (bits >>> 16) & 0x8000
  const exponent = (bits >>> 23) & 0xff
  if (exponent === 0xff) return sign | 0x7c00 | ((bits & 0x7fffff) === 0 ? 0 : 0x200)
  if (exponent >= 143) return sign | 0x7c00
  if (exponent >= 113) {
    // A carry out of the mantissa raises the exponent, which is right, up to infinity.
    const kept = ((exponent - 112) << 10) | ((bits >>> 13) & 0x3ff)
    return sign | roundEven(kept, bits & 0x1fff, 0x1000)
  }
  if (exponent < 102) return sign
  const shift = 126 - exponent
  const mantissa = (bits & 0x7fffff) | 0x800000
  return sign | roundEven(mantissa >>> shift, mantissa & ((1 << shift) - 1), 1 << (shift - 1))
}

/** The bits of the bfloat16 number nearest to a finite `value`, ties to even. */
export function toBfloat(value: number): number {
  FLOAT[0] = value
  const bits = FLOAT_BITS[0]!
  return roundEven(bits >>> 16, bits & 0xffff, 0x8000) & 0xffff
}

function roundEven(kept: number, rest: number, half: number): number {
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept
}
