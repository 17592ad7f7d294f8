/** Cutting UTF-8 where a decoder may stop without spoiling a character. */

/**
 * How many bytes at the end of `bytes` (0 to 3) begin a character that is not complete yet. Bytes that can no longer become a
 * character are not counted: decoding may turn them into U+FFFD at once. Ranges: The Unicode Standard, table 3-7.
 */
export function incompleteTail(bytes: Uint8Array): number {
  const longest = Math.min(3, bytes.length)
  for (let size = 1; size <= longest; size++) {
    const lead = bytes[bytes.length - size] ?? 0
    if (lead >= 0x80 && lead < 0xc0) continue // a continuation byte: the lead is further back
    const needs = lead >= 0xf0 && lead <= 0xf4 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xc2 && lead < 0xe0 ? 2 : 1
    if (size >= needs) return 0
    return size === 1 || isSecondByte(lead, bytes[bytes.length - size + 1] ?? 0) ? size : 0
  }
  return 0
}

function isSecondByte(lead: number, byte: number): boolean {
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
  return byte >= low && byte <= high
}
