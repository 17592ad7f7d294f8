/** Compares a plan with what the machine has. */
import { TandemError } from '../errors.ts'
import type { DeviceBytes, Machine, Plan } from './types.ts'

/** Node, V8's code and the workers' own heaps, bytes per worker; measured on Node 26. */
const WORKER_OVERHEAD_BYTES = 12 * 2 ** 20

/** A size for messages about memory. */
export const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`

/** What a device's bytes are for. */
export function partsText({ weights, kvCache, buffers }: DeviceBytes): string {
  return `weights ${gib(weights)}, KV cache ${gib(kvCache)}, buffers ${gib(buffers)}`
}

/** That there is no GPU, why, and what to do. `subject`: who wants one. */
export function deviceAbsent(subject: string, { deviceProblem = 'none was looked for' }: Machine): TandemError {
  return new TandemError(
    'ERR_DEVICE_ABSENT',
    `${subject} on 'cuda', and there is no GPU that Tandem can use (${deviceProblem}): install the optional package ` +
      '@tandem-moe/cuda-linux-x64, or build the library with npm run build:cuda where nvcc is (TANDEM_CUDA_LIBRARY names one elsewhere), ' +
      'or use --pipeline cpu',
  )
}

/** Throws `ERR_DEVICE_ABSENT`, or `ERR_MEMORY` when the plan needs more than the machine has free. */
export function checkMemory({ pipeline, limits, devices, wasm, cuda }: Plan, machine: Machine): void {
  if (wasm) {
    const needed = wasm.arenas.reduce((sum, bytes) => sum + bytes, 0) + limits.threads * WORKER_OVERHEAD_BYTES
    const device = devices.find(({ id }) => id === 'wasm')!
    if (needed > machine.availableBytes) {
      const advice = cuda ? 'put more experts on the GPU (--gpu-layers), lower the ubatch' : 'lower the context'
      throw new TandemError(
        'ERR_MEMORY',
        `the model needs ${gib(needed)} (${partsText(device)}), ${gib(machine.availableBytes)} are available: ${advice} or use a smaller file`,
      )
    }
  }
  if (cuda) {
    const gpu = machine.devices.find(({ index }) => index === cuda.device)
    if (!gpu) throw deviceAbsent(`pipeline '${pipeline.name}' puts stages`, machine)
    const device = devices.find(({ id }) => id === `cuda:${cuda.device}`)!
    if (device.bytes > gpu.freeBytes) {
      throw new TandemError(
        'ERR_MEMORY',
        `the GPU's part of the model needs ${gib(device.bytes)} (${partsText(device)}), ${gib(gpu.freeBytes)} of ${gib(gpu.bytes)} are free on ` +
          `${gpu.name}: ${gpuAdvice(cuda.shape.deviceExperts)}`,
      )
    }
  }
}

/** What makes a GPU's part of a plan smaller. */
export function gpuAdvice(hasExperts: boolean): string {
  const experts = hasExperts ? "put fewer layers' experts there (--pipeline hybrid with --gpu-memory or --gpu-layers), or " : ''
  return `${experts}lower the context, the ubatch or the outputs`
}
