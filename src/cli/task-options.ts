/** Options of the commands that work on many tasks at a time. */
import type { Command } from 'commander'
import type { EngineFlags } from './engine-options.ts'
import { whole } from './values.ts'

/** What commander makes of the options. */
export interface TaskFlags extends EngineFlags {
  readonly maxConcurrency: number
  readonly prefixSharing: boolean
}

const CONCURRENCY = 32

/** Adds the options. */
export function addTaskOptions(command: Command): Command {
  return command
    .option('--max-concurrency <n>', 'tasks that are worked on at a time', whole(1, 4096), CONCURRENCY)
    .option('--no-prefix-sharing', 'compute what prompts have in common for each of them')
}
