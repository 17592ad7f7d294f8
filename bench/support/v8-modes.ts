/** The two ways that V8 runs the kernels, which the product chooses by itself: revectorised where it may, plain where it must or is told to. */
import { revectorizeFacts, whyNotRevectorized } from '../../src/wasm/v8-flags.ts'

/** Environment of a child process by mode. */
export const V8_MODES = { plain: { TANDEM_REVECTORIZE: '0' }, revectorised: {} } as const

/** A key of `V8_MODES`. */
export type V8Mode = keyof typeof V8_MODES

/** Modes that differ here. */
export const USABLE_MODES: readonly V8Mode[] = whyNotRevectorized(revectorizeFacts()) === undefined ? ['plain', 'revectorised'] : ['plain']
