/** `--profile`: an engine that records where the time goes, and the tables that tell. */
import type { Command } from 'commander'
import type { Profile, StepProfile } from '../engine/profile.ts'
import { countText, table } from './text.ts'

export function addProfileOption(command: Command): Command {
  return command.option('--profile', 'where the time of a step goes, by stage, on stderr at the end')
}

const HEADING = ['', 'ms/step', '%', 'waiting', 'GB/s']

function stepText(kind: string, { steps, tokens, ms, begin, stages, wakeMs, handOffMs }: StepProfile): string {
  const line = (name: string, time: number, waitMs?: number, gbPerSecond?: number): string[] => [
    name,
    time.toFixed(3),
    ((100 * time) / ms).toFixed(1),
    waitMs?.toFixed(3) ?? '',
    gbPerSecond?.toFixed(2) ?? '',
  ]
  const waiting = stages.reduce((sum, { waitMs }) => sum + waitMs, begin.waitMs)
  const rows = [
    HEADING,
    line('begin', begin.ms, begin.waitMs),
    ...stages.map((stage) => line(stage.stage, stage.ms, stage.waitMs, stage.gbPerSecond)),
    line('wake-up', wakeMs),
    line('hand-off', handOffMs),
    line('step', ms, waiting),
  ]
  const widths = HEADING.map((_, column) => (column === 0 ? 0 : Math.max(...rows.map((row) => row[column]!.length))))
  const flushRight = rows.map((row) => row.map((cell, column) => cell.padStart(widths[column]!)))
  return `${kind}: ${countText(steps)} steps, ${countText(tokens)} tokens\n${table(flushRight)}`
}

/** A table per kind of step that there was. Waiting is part of ms/step. */
export function profileText({ prefill, decode }: Profile): string {
  const kinds = [
    ['prefill', prefill],
    ['decode', decode],
  ] as const
  return kinds
    .filter(([, profile]) => profile.steps > 0)
    .map(([kind, profile]) => stepText(kind, profile))
    .join('\n')
    .trimEnd()
}
