/** An executor's start: ready, or gone. */

/** What has to get ready before it is used, and holds what must be released. */
export interface Starting {
  whenReady(): Promise<void>
  close(): Promise<void>
}

/** Waits until an executor is ready. On any failure it is closed before this rejects. */
export async function started<Executor extends Starting>(executor: Executor): Promise<Executor> {
  try {
    await executor.whenReady()
    return executor
  } catch (error) {
    await executor.close()
    throw error
  }
}
