/** What a picture of a sweep says about where and how it was measured. */
import { cpus, totalmem } from 'node:os'
import { modelName } from './sweep-configurations.ts'
import type { PlannedSweep } from './sweep-run.ts'
import { bytesText, countText } from './text.ts'

/** More names than this are a number. */
const NAMED_MODELS = 3

/** Names the models. */
export function sweepTitle(paths: readonly string[]): string {
  const names = [...new Set(paths.map(modelName))]
  return `${names.length > NAMED_MODELS ? `${names.length} models` : names.join(', ')}: speed at every depth of the cache`
}

/** One text where all agree, a range where they do not. */
function agreed(values: readonly number[]): string {
  const [low, high] = [Math.min(...values), Math.max(...values)]
  return low === high ? countText(low) : `${countText(low)} to ${countText(high)}`
}

/** The machine, and the measurement. */
export function measurementNotes(all: readonly PlannedSweep[], repeat: number): string[] {
  const { cores, physicalCores = cores } = all[0]!.machine
  const gpus = new Set(
    all
      .flatMap(({ plan, machine }) => (plan.cuda ? machine.devices.filter(({ index }) => index === plan.cuda?.device) : []))
      .map(({ name }) => name),
  )
  const threads = all.flatMap(({ plan }) => (plan.wasm ? [plan.limits.threads] : []))
  const machine = [
    `${cpus()[0]?.model.trim() ?? process.arch}, ${physicalCores} cores${threads.length > 0 ? ` (${agreed(threads)} threads)` : ''}, ${bytesText(totalmem())}`,
    ...gpus,
    `Node ${process.versions.node}`,
    new Date().toISOString().slice(0, 10),
  ]
  const shapes = all.map(({ shape }) => shape)
  const how = [
    `${agreed(shapes.map(({ pp }) => pp))} tokens prefilled and ${agreed(shapes.map(({ tg }) => tg))} decoded at each depth`,
    repeat > 1 ? `medians of ${repeat} sweeps, whiskers from the slowest to the fastest` : 'one sweep',
  ]
  return [machine.join('; '), how.join('; ')]
}
