/**
 * The pool's control block: words that the main thread and all workers share. One cache line (16 words) per group, because a word that one
 * thread writes often must not share its line with one that others wait on.
 */

/** Index of the first word of each group. Word 0 is the poison word (`ring/wait.ts`). */
export const CONTROL = {
  poison: 0,
  /** 1 once the workers shall return from `serve`. */
  stop: 16,
  /** Loading: index of the next load that nobody has taken. */
  nextLoad: 32,
  /** Loading: file bytes read so far, in units of 256 bytes so that 32 bits reach 1 TiB. */
  loaded: 48,
  /** Workers that are loaded and serving. */
  ready: 64,
  /** Set by the last arriver of a barrier when the step is to be abandoned; read by all after it. */
  abandon: 80,
  /** `FanIn` of the workers, 32 words. */
  barrier: 96,
  /** `CHUNK_COUNTERS` counters, one per product between two barriers: the next chunk of rows that nobody has taken. */
  chunks: 128,
  /** `HANDOFF` words, between a device and the pool. */
  handoff: 256,
  /** `Ring` of steps. */
  ring: 384,
} as const

/**
 * Words of the hand-off between a device and the pool, relative to `CONTROL.handoff`: each side writes words of its own, all count up and wrap. The
 * first three are a `Ring` of depth 1 whose producer is the device (`ring/ring.ts`), so `published`, `completed` and the releases lie as it wants.
 */
export const HANDOFF = {
  /** Device: hand-offs published; the two words behind it are written before: the entry of the pool's program to run, and its tokens. */
  published: 0,
  entry: 1,
  tokens: 2,
  /** Pool: hand-offs completed. */
  completed: 16,
  /** Device: steps finished. */
  finished: 64,
  /** Device: status of the first failure inside a step, 0 while there is none. */
  status: 80,
} as const

/** Products whose rows may be shared out in chunks between two barriers. */
export const CHUNK_COUNTERS = 8

/** Bytes that one unit of `CONTROL.loaded` stands for. */
export const LOADED_UNIT_BYTES = 256
