/** What the CUDA library can compute with, so that a model that it cannot run fails when it is planned. */
import type { FormatName } from '../abi/formats.ts'
import { TandemError } from '../errors.ts'
import type { Matrix } from '../model/types.ts'
import type { DeviceShape } from './types.ts'

/** Formats that the library has kernels for: those of cuda/formats.cuh. */
export const DEVICE_FORMATS: ReadonlySet<FormatName> = new Set<FormatName>([
  'F32',
  'F16',
  'BF16',
  'Q4_0',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'Q8_0',
  'IQ4_NL',
  'MXFP4',
  'Q2_K',
  'Q3_K',
  'Q4_K',
  'Q5_K',
  'Q6_K',
  'IQ4_XS',
])

/** Throws `ERR_FORMAT_UNSUPPORTED` for a matrix in another format. */
export function checkDeviceFormat({ tensor }: Matrix, formats: ReadonlySet<FormatName> = DEVICE_FORMATS): void {
  if (formats.has(tensor.format)) return
  throw new TandemError(
    'ERR_FORMAT_UNSUPPORTED',
    `tensor ${tensor.name} is in ${tensor.format}, which the executor 'cuda' has no kernels for: use --pipeline cpu, or another quantisation`,
  )
}

/** Throws `ERR_PIPELINE_INVALID` for a model whose dimensions the kernels cannot do: `shape_fault` in cuda/buffers.cu. */
export function checkDeviceShape({ hidden, headDim, experts, expertsUsed }: DeviceShape): void {
  const faults = [
    hidden % 32 === 0 ? '' : `its hidden size, ${hidden}, is no multiple of 32`,
    headDim % 32 === 0 && headDim <= 256 ? '' : `its head size, ${headDim}, is no multiple of 32 up to 256`,
    experts <= 4096 && expertsUsed <= 64 ? '' : `it has ${experts} experts and uses ${expertsUsed}, more than 4096 or 64`,
  ].filter((fault) => fault !== '')
  if (faults.length === 0) return
  throw new TandemError('ERR_PIPELINE_INVALID', `the executor 'cuda' cannot run this model: ${faults.join(', ')}; use --pipeline cpu`)
}
