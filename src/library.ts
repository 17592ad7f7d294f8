/** The engine as the package gives it: with the batch jobs that stand above it. */
import type { BatchOptions } from './batch/job.ts'
import type { BatchSummary } from './batch/progress.ts'
import { Engine as ModelEngine } from './engine/engine.ts'
import { loadEngine, type LoadOptions } from './engine/load-model.ts'

/** A loaded model. Made by `loadModel`. */
export class Engine extends ModelEngine {
  /**
   * Answers a file of prompts, as many at a time as there is room for; started again, it does what is missing. Lines that fail are in the summary
   * and the output. Throws `ERR_BATCH_INPUT`, `ERR_BATCH_OUTPUT`, `ERR_FILE_ACCESS`, `ERR_ARGUMENT`, `ERR_ABORTED`, and failures of the engine.
   */
  async batch(options: BatchOptions): Promise<BatchSummary> {
    const { runBatch } = await import('./batch/job.ts')
    return runBatch(this, options)
  }
}

/** See `load.ts`. */
export function loadModel(path: string, options: LoadOptions = {}): Promise<Engine> {
  return loadEngine(path, options, (parts) => new Engine(parts))
}
