/**
 * Puts pages of a file in the place of pages of an arena: nothing is copied, and processes that map the same file share its pages.
 *
 * The pages are read-only. A kernel that wrote to them would trap, JavaScript that did would end the process: only weights are mapped, on pages that
 * they share with nothing. A file that becomes shorter while it is mapped ends the process too (SIGBUS): files to be mapped are replaced by renaming,
 * never written in place.
 */
import { TandemError } from '../errors.ts'
import { arenaBuffer, FILE_PAGE_BYTES } from '../ring/arena.ts'
import { type Koffi, loadKoffi } from './koffi.ts'

/** Bytes of a file, and where in the arenas they belong. */
export interface FileRange {
  readonly arena: number
  readonly offset: number
  readonly fileOffset: number
  readonly bytes: number
}

/** Of `mmap(2)`; the same on x64 and arm64. */
const PROT_READ = 1
const MAP_PRIVATE = 2
const MAP_FIXED = 16

type Mmap = (address: bigint, length: number, protection: number, flags: number, descriptor: number, offset: number) => number | bigint

const mmapOf = (koffi: Koffi): Mmap =>
  koffi.load(null).func('uint64_t mmap(uint64_t address, size_t length, int protection, int flags, int descriptor, int64_t offset)') as Mmap

/** What `mmap` returns when it fails. */
const FAILED = 2n ** 64n - 1n

/** Whether this machine can map an open file: Linux, with pages of the size that arenas are laid out for, and a file system that maps. */
export async function canMapFile(descriptor: number): Promise<boolean> {
  if (process.platform !== 'linux') return false
  try {
    const koffi = await loadKoffi()
    const library = koffi.load(null)
    const pageBytes = (library.func('int getpagesize()') as () => number)()
    if (pageBytes !== FILE_PAGE_BYTES) return false
    const address = mmapOf(koffi)(0n, FILE_PAGE_BYTES, PROT_READ, MAP_PRIVATE, descriptor, 0)
    if (BigInt(address) === FAILED) return false
    const munmap = library.func('int munmap(uint64_t address, size_t length)') as (address: number | bigint, length: number) => number
    return munmap(address, FILE_PAGE_BYTES) === 0
  } catch {
    return false
  }
}

const wholePages = (bytes: number): number => Math.ceil(bytes / FILE_PAGE_BYTES) * FILE_PAGE_BYTES

/**
 * Maps ranges of an open file over arenas, in whole pages: they begin on pages in both, and what follows them on their last page is nobody's. The
 * descriptor may be closed afterwards. Throws `ERR_MEMORY`; the arenas must not be used then.
 */
export async function mapFile(descriptor: number, memories: readonly WebAssembly.Memory[], ranges: readonly FileRange[]): Promise<void> {
  const koffi = await loadKoffi()
  const mmap = mmapOf(koffi)
  const arenas = memories.map((memory) => {
    const buffer = arenaBuffer(memory)
    return { bytes: buffer.byteLength, address: koffi.address(new Uint8Array(buffer)) }
  })
  for (const { arena, offset, fileOffset, bytes } of ranges) {
    const { address, bytes: arenaBytes } = arenas[arena]!
    const length = wholePages(bytes)
    // beyond the arena is memory that belongs to something else
    if (offset % FILE_PAGE_BYTES !== 0 || fileOffset % FILE_PAGE_BYTES !== 0 || !(offset >= 0 && offset + length <= arenaBytes)) {
      throw new TandemError('ERR_INTERNAL', `${bytes} bytes of a file cannot be mapped at ${offset} of an arena of ${arenaBytes} bytes`)
    }
    const at = address + BigInt(offset)
    const mapped = mmap(at, length, PROT_READ, MAP_PRIVATE | MAP_FIXED, descriptor, fileOffset)
    if (BigInt(mapped) === at) continue
    throw new TandemError(
      'ERR_MEMORY',
      `the system does not map ${length} bytes of the repacked file (errno ${koffi.errno()}): load without it`,
    )
  }
}
