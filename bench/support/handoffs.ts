/** Hand-offs between a GPU and the pool, from a trace's own time stamps. */
import type { Engine } from '../../src/index.ts'

interface TraceEvent {
  readonly ph: string
  readonly tid: number
  readonly name: string
  readonly ts: number
  readonly dur: number
  readonly args: { readonly name?: string; readonly layer?: number; readonly waitUs?: number }
}

/**
 * One hand-off, microseconds. Means are those of the workers.
 *
 *     router |--start--|====== computing and barriers ======|--laggard--|--back--| combine done
 *                      ^ mean of the workers' begins        ^ mean of   ^ the last worker's end
 *                                                             their ends
 */
export interface Handoff {
  /** From the router's end to the end of combine. */
  readonly totalUs: number
  readonly sharedUs: number
  /** How long before the pool's last worker the shared expert was done; negative when after it. */
  readonly aheadUs: number
  /** From the router's end until a worker begins, a mean. */
  readonly startUs: number
  /** At barriers inside, a mean. Who finishes early and waits counts as waiting. */
  readonly barriersUs: number
  /** From a worker's end, a mean, to the last one's. */
  readonly laggardUs: number
  /** From the last worker's end to the end of combine. */
  readonly backUs: number
  /** The four together: the total without what a worker computed, a mean. */
  readonly hostUs: number
  /** The total without the time from the first worker's start to the last one's end, which varies by more than the shared expert takes. */
  readonly aroundUs: number
}

/** All hand-offs that the engine's trace has so far, in their order. */
export function handoffsOf(engine: Engine): Handoff[] {
  const { traceEvents } = JSON.parse([...(engine.trace() ?? [])].join('')) as { traceEvents: TraceEvent[] }
  const names = new Map(traceEvents.filter(({ name }) => name === 'thread_name').map(({ tid, args }) => [tid, args.name ?? '']))
  const on = (prefix: RegExp): TraceEvent[] =>
    traceEvents.filter(({ ph, tid }) => ph === 'X' && prefix.test(names.get(tid) ?? '')).sort((a, b) => a.ts - b.ts)
  const workers = on(/^worker /)
  const open = new Map<string, TraceEvent>()
  const found: Handoff[] = []
  let worker = 0
  for (const event of on(/stream$/)) {
    if (event.name !== 'combine' || !open.has('awaitRouted')) {
      open.set(event.name, event)
      continue
    }
    const end = event.ts + event.dur
    const first = worker
    while (worker < workers.length && workers[worker]!.ts < end) worker++
    if (worker > first) found.push(handoff(open.get('router')!, open.get('sharedExperts'), workers.slice(first, worker), end))
    open.clear()
  }
  return found
}

function handoff(router: TraceEvent, shared: TraceEvent | undefined, workers: readonly TraceEvent[], end: number): Handoff {
  const mean = (of: (event: TraceEvent) => number): number => workers.reduce((sum, event) => sum + of(event), 0) / workers.length
  const routed = router.ts + router.dur
  const lastDone = Math.max(...workers.map(({ ts, dur }) => ts + dur))
  const totalUs = end - routed
  const startUs = mean(({ ts }) => ts) - routed
  const barriersUs = mean(({ args }) => args.waitUs ?? 0)
  const laggardUs = lastDone - mean(({ ts, dur }) => ts + dur)
  const backUs = end - lastDone
  const sharedDone = shared === undefined ? routed : shared.ts + shared.dur
  return {
    totalUs,
    sharedUs: shared?.dur ?? 0,
    aheadUs: lastDone - sharedDone,
    startUs,
    barriersUs,
    laggardUs,
    backUs,
    hostUs: startUs + barriersUs + laggardUs + backUs,
    aroundUs: totalUs - (lastDone - workers[0]!.ts),
  }
}
