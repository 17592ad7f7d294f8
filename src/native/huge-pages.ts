/**
 * Asks the system for huge pages (2 MiB) under memory that will hold weights: far fewer page faults while it is filled, and fewer misses of the
 * processor's address cache while it is read. Advice: where it cannot be given or is not taken, everything works as before.
 */
import { arenaBuffer } from '../ring/arena.ts'
import { loadKoffi } from './koffi.ts'

/** `MADV_HUGEPAGE` of Linux. */
const MADV_HUGEPAGE = 14

/** True when the system took the advice for all of the memories. Before anything is written to them. */
export async function adviseHugePages(memories: readonly WebAssembly.Memory[]): Promise<boolean> {
  if (process.platform !== 'linux') return false
  try {
    const koffi = await loadKoffi()
    const madvise = koffi.load(null).func('int madvise(void *address, size_t length, int advice)') as (
      address: Uint8Array,
      length: number,
      advice: number,
    ) => number
    return memories.every((memory) => {
      const bytes = new Uint8Array(arenaBuffer(memory))
      return madvise(bytes, bytes.length, MADV_HUGEPAGE) === 0
    })
  } catch {
    return false
  }
}
