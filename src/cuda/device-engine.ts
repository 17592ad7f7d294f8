/**
 * An engine on a device, in the CUDA worker's thread.
 *
 *     constructor (opens, registers host memory, takes device memory) --> load --> serve --> close
 */
import { CONTROL, HANDOFF } from '../abi/control.ts'
import { TandemError } from '../errors.ts'
import { arenaBuffer } from '../ring/arena.ts'
import { isPoisoned, poison } from '../ring/poison.ts'
import { Ring } from '../ring/ring.ts'
import { userCallers } from '../user-stages/callers.ts'
import { layerStruct, modelStruct, type Regions, shapeStruct, slotStruct } from './bind.ts'
import type { CudaFunctions, CudaLibrary, Handle } from './library.ts'
import type { CudaStats, CudaTask } from './protocol.ts'
import { heldLayers, partsOf } from './parts.ts'
import { markCount } from './results.ts'
import { StepRunner } from './run-step.ts'
import { StepTracer } from './step-tracer.ts'
import { uploadWeights } from './upload.ts'
import { UserCalls } from './user-calls.ts'

/** The unit in which memory is registered. */
const OS_PAGE_BYTES = 4096

/** See the file's header. The handle and all calls belong to one thread. */
export class DeviceEngine {
  readonly handle: Handle
  readonly #task: CudaTask
  readonly #library: CudaLibrary
  readonly #tcu: CudaFunctions
  readonly #words: Int32Array<SharedArrayBuffer>
  readonly #control: number
  readonly #arenas: readonly number[]
  readonly #results: number
  readonly #regions: Regions
  /** Registered memory must live until the engine is closed. */
  readonly #registered: WebAssembly.Memory[] = []

  /** Throws `ERR_DEVICE_ABSENT`, `ERR_MEMORY`, `ERR_KERNEL`, `ERR_DEVICE`, `ERR_DEVICE_LOST`. */
  constructor(task: CudaTask, library: CudaLibrary) {
    this.#task = task
    this.#library = library
    this.#tcu = library.functions
    this.#words = new Int32Array(arenaBuffer(task.control))
    const { plan, program } = task
    const frequencies = Float64Array.from(program.shape.ropeFrequencies)
    this.handle = this.#tcu.tcu_open(plan.device, shapeStruct(plan, program, task.deadlineMs), frequencies)
    try {
      this.#control = this.#register(task.control, arenaBuffer(task.control).byteLength)
      this.#results = this.#register(task.results, arenaBuffer(task.results).byteLength)
      this.#arenas = task.arenas.map((memory) => this.#register(memory, task.arena?.end ?? 0))
      this.#regions = {
        weights: this.#tcu.tcu_memory(this.handle, plan.weightBytes),
        caches: this.#tcu.tcu_memory(this.handle, plan.cacheBytes),
      }
      // a block of the cache is multiplied with before all its rows have been written
      this.#tcu.tcu_clear(this.handle, this.#regions.caches, plan.cacheBytes)
    } catch (error) {
      this.#closeQuietly()
      throw error
    }
  }

  /** Gives back what was taken so far; the reason for that is what is told. */
  #closeQuietly(): void {
    try {
      this.close()
    } catch (error) {
      void error
    }
  }

  /** Page-locks the first `bytes` of a memory; its address. */
  #register(memory: WebAssembly.Memory, bytes: number): number {
    const address = this.#library.address(new Uint8Array(arenaBuffer(memory), 0, 1))
    this.#tcu.tcu_register(this.handle, address, Math.ceil(bytes / OS_PAGE_BYTES) * OS_PAGE_BYTES)
    this.#registered.push(memory)
    return address
  }

  #shouldStop(): boolean {
    return Atomics.load(this.#words, CONTROL.stop) !== 0 || isPoisoned(this.#words)
  }

  /** Fills the weight region and binds the model; ends early when the engine is stopped. Errors as of `uploadWeights`. */
  load(): void {
    const { loads, paths, results } = this.#task
    const target = {
      tcu: this.#tcu,
      engine: this.handle,
      weights: this.#regions.weights,
      words: new Int32Array(arenaBuffer(results)),
      register: (memory: WebAssembly.Memory, bytes: number) => this.#register(memory, bytes),
    }
    uploadWeights(target, loads, paths, () => this.#shouldStop())
    if (!this.#shouldStop()) this.#bind()
  }

  #bind(): void {
    const { plan, program, arena, trace } = this.#task
    const marks = markCount(program, trace !== undefined)
    const held = heldLayers(program)
    const { results: at } = program
    const word = (index: number): number => this.#control + index * 4
    this.#tcu.tcu_attach(this.handle, {
      poison: word(CONTROL.poison),
      published: word(CONTROL.handoff + HANDOFF.published),
      completed: word(CONTROL.handoff + HANDOFF.completed),
      finished: word(CONTROL.handoff + HANDOFF.finished),
      status: word(CONTROL.handoff + HANDOFF.status),
      logits: this.#results + at.logits,
      hidden: this.#results + at.hidden,
      topIds: this.#results + at.topIds,
      topLogits: this.#results + at.topLogits,
      marks: marks > 0 ? this.#results + at.end : null,
      markCount: marks,
    })
    this.#tcu.tcu_bind_model(this.handle, modelStruct(plan, this.#regions))
    plan.layers.forEach((layer, index) => {
      const { handoff } = layer
      const slot = handoff && arena ? slotStruct(handoff, arena, this.#arenas[handoff.arena]!, held.has(index)) : null
      this.#tcu.tcu_bind_layer(this.handle, index, layerStruct(layer, this.#regions), slot)
    })
  }

  #tracer(): StepTracer | undefined {
    const { trace, program, results } = this.#task
    if (!trace) return undefined
    const marks = new BigUint64Array(arenaBuffer(results), program.results.end, markCount(program, true))
    return new StepTracer({ tcu: this.#tcu, engine: this.handle, marks, trace })
  }

  /** What the functions of user stages are called with, where the program has any. */
  async #userCalls(): Promise<UserCalls | undefined> {
    const { program, userStages, results, arenas } = this.#task
    if (!program.user || !userStages) return undefined
    const bytes = (memory: WebAssembly.Memory) => new Uint8Array(arenaBuffer(memory))
    const callers = await userCallers(program.user, userStages, this.#task)
    return new UserCalls({ program: program.user, callers, results: bytes(results), arenas: arenas.map(bytes) })
  }

  async #runner(): Promise<StepRunner> {
    const { plan, program, arena, spins, deadlineMs } = this.#task
    return new StepRunner({
      tcu: this.#tcu,
      engine: this.handle,
      program,
      top: plan.shape.top,
      partsOf: (tokens) => partsOf(program, plan.layers, arena, tokens),
      userCalls: await this.#userCalls(),
      words: this.#words,
      address: this.#control,
      results: this.#results,
      spins,
      deadlineMs,
      tracer: this.#tracer(),
    })
  }

  /** Takes step after step from the ring until the engine stops it. Whatever it throws, everyone else has been poisoned. */
  async serve(): Promise<CudaStats> {
    const { ringDepth, slots, slotBytes, idleSpins } = this.#task
    const ring = new Ring(this.#words, CONTROL.ring, ringDepth, 1)
    try {
      const runner = await this.#runner()
      for (let sequence = 1; ; sequence = (sequence + 1) | 0) {
        ring.claim(sequence, { spins: idleSpins, deadlineMs: Infinity, what: 'the next step' })
        // To stop, the engine publishes one more slot: its contents do not matter.
        if (Atomics.load(this.#words, CONTROL.stop) !== 0) return runner.stats
        runner.run(slots + ring.slotOf(sequence) * slotBytes, sequence)
        ring.release(sequence)
      }
    } catch (cause) {
      // the device's waits end, so that the engine can be closed
      poison(this.#words, [...ring.waitWords, CONTROL.handoff + HANDOFF.published])
      throw TandemError.from(cause)
    }
  }

  /** Ends what is queued and gives everything back. May be called once. */
  close(): void {
    this.#tcu.tcu_close(this.handle)
  }
}
