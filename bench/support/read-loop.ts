/**
 * The fastest read of memory that WASM can do: what the kernels' rates are compared with. One load per cache line brings all of it in; loading every byte
 * was a quarter slower, as the loads of one line get in the way of the next. Assembled here by hand, so that benchmarks need no compiler.
 *
 *     (func (export "read") (param $at i32) (param $end i32) (result i32) (local $x v128)
 *       (loop $next
 *         $x = $x xor v128.load($at + 0) xor v128.load($at + 64) ... xor v128.load($at + 448)
 *         $at += 512
 *         (br_if $next ($at < $end)))
 *       (v128.any_true $x))
 */

/** Bytes that one turn of the loop goes on. */
export const STRIDE = 512
const LINE = 64

const LOCAL = { at: 0, end: 1, x: 2 } as const
const I32 = 0x7f
const V128 = 0x7b
const get = (local: number): number[] => [0x20, local]
const set = (local: number): number[] => [0x21, local]
const loadAt = (offset: number): number[] => [...get(LOCAL.at), 0xfd, 0x00, 0x04, ...leb(offset)]
const XOR = [0xfd, 0x51]
const ANY_TRUE = [0xfd, 0x53]

/** Unsigned LEB128. */
function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)]
}

const section = (id: number, content: readonly number[]): number[] => [id, ...leb(content.length), ...content]
const text = (value: string): number[] => [value.length, ...Buffer.from(value, 'ascii')]

function moduleBytes(): Uint8Array<ArrayBuffer> {
  const loads = Array.from({ length: STRIDE / LINE }, (_, index) => [...loadAt(LINE * index), ...XOR]).flat()
  const code = [
    ...[0x03, 0x40], // loop
    ...get(LOCAL.x),
    ...loads,
    ...set(LOCAL.x),
    ...[...get(LOCAL.at), 0x41, ...[0x80, 0x04], 0x6a], // at + 512, a signed LEB128
    ...[0x22, LOCAL.at], // tee
    ...[...get(LOCAL.end), 0x49, 0x0d, 0x00], // < end, br_if 0
    0x0b,
    ...[...get(LOCAL.x), ...ANY_TRUE, 0x0b],
  ]
  const body = [1, 1, V128, ...code]
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 2, I32, I32, 1, I32]),
    // env.memory, shared, from 0 to 65536 pages
    ...section(2, [1, ...text('env'), ...text('memory'), 2, 3, 0, ...leb(65536)]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text('read'), 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body]),
  ])
}

/** `read(begin, end)` over a shared memory; both are multiples of `STRIDE`. 1 when any byte of the xor of all vectors is not zero. */
export function readLoop(memory: WebAssembly.Memory): (begin: number, end: number) => number {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes()), { env: { memory } })
  return exports['read'] as (begin: number, end: number) => number
}
