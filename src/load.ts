/** The two functions that need the engine, which is imported when one of them is called: to import the package is cheap. */
import type { LoadOptions, PlannedModel } from './engine/load-model.ts'
import type { Engine } from './library.ts'

/**
 * Loads a model: a GGUF file, the first shard of a split one, or a directory with one model in it. The engine owns its worker threads and
 * memory until `close()`. Throws what `planModel` throws, and `ERR_MEMORY`, `ERR_WEIGHT_NOT_FINITE`, `ERR_ABORTED`, `ERR_DEVICE`.
 */
export async function loadModel(path: string, options?: LoadOptions): Promise<Engine> {
  const library = await import('./library.ts')
  return library.loadModel(path, options)
}

/** Everything up to the point where memory is taken. Throws the codes of model files, models and plans, see docs/errors.md. */
export async function planModel(path: string, options?: LoadOptions): Promise<PlannedModel> {
  const engine = await import('./engine/load-model.ts')
  return engine.planModel(path, options)
}
