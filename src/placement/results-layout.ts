/**
 * Memory of the host that a GPU writes results to, and where user stages see what it works on:
 *
 *     words           i32[16]                 written by the worker: file bytes loaded so far, in units of LOADED_UNIT_BYTES
 *     topIds          i32[outputs, top]
 *     topLogits       f32[outputs, top]
 *     hidden          f32[outputs, hidden]    what the head multiplies, where it is asked for
 *     logits          f32[outputs, vocabulary]
 *
 *     step            the step's record       \
 *     x               f32[U, hidden]           \
 *     shared, routed  f32[U, hidden]            } with user stages only
 *     expertIds       i32[U, expertsUsed]      /
 *     expertWeights   f32[U, expertsUsed]     /
 *
 *     marks           u64[marks]              behind `end`: the device's clock, ns, when a trace is wanted
 *
 * Pure.
 */
import { Layout } from '../ring/arena.ts'
import type { DeviceShape, StepLayout, ViewLayout } from './types.ts'

const WORDS_BYTES = 64

/** Byte offsets; 0 is something that is not there. */
export interface ResultsLayout extends ViewLayout {
  readonly topIds: number
  readonly topLogits: number
  readonly hidden: number
  readonly end: number
}

/** The layout for a shape. */
export function resultsLayout(shape: DeviceShape, step: StepLayout, hasUserStages: boolean): ResultsLayout {
  const { outputs, top, vocabulary, hidden, ubatch, expertsUsed } = shape
  const layout = new Layout(WORDS_BYTES)
  const seen = (bytes: number): number => (hasUserStages ? layout.reserve(bytes) : 0)
  const at = {
    topIds: layout.reserve(outputs * top * 4),
    topLogits: layout.reserve(outputs * top * 4),
    hidden: layout.reserve(outputs * hidden * 4),
    logits: layout.reserve(outputs * vocabulary * 4),
    step: seen(step.bytes),
    x: seen(ubatch * hidden * 4),
    shared: seen(ubatch * hidden * 4),
    routed: seen(ubatch * hidden * 4),
    expertIds: seen(ubatch * expertsUsed * 4),
    expertWeights: seen(ubatch * expertsUsed * 4),
  }
  return { ...at, end: Math.ceil(layout.bytes / 64) * 64 }
}
