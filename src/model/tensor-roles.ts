/** Finds tensors by role and checks their shapes, keeping account of which were used. */
import { TandemError } from '../errors.ts'
import type { ModelFile, TensorInfo } from '../gguf/types.ts'
import type { Presence, TensorNames } from './architecture.ts'
import type { Matrix, Vector } from './types.ts'

/** Formats that a vector may have: it is read once, at load, as f32. */
const VECTOR_FORMATS: ReadonlySet<string> = new Set(['F32', 'F16', 'BF16'])

/** What a matrix should look like. `experts` is left out for plain matrices. */
export interface MatrixShape {
  readonly columns: number
  readonly rows: number
  readonly experts?: number
}

/** The tensors of a file, taken one role at a time. */
export class TensorRoles {
  readonly #file: ModelFile
  readonly #used = new Set<string>()

  constructor(file: ModelFile) {
    this.#file = file
  }

  /** True when the file has a tensor of this name. */
  has(name: string): boolean {
    return this.#file.tensors.has(name)
  }

  /** A matrix, or one per expert. Throws `ERR_TENSOR_MISSING`, `ERR_TENSOR_SHAPE`. */
  matrix(name: string, { columns, rows, experts }: MatrixShape): Matrix {
    const tensor = this.#take([name], experts === undefined ? [columns, rows] : [columns, rows, experts])
    return { tensor, columns, rows, experts: experts ?? 1, rowsPerExpert: rows, firstRow: 0 }
  }

  /** A vector. Throws as above, and `ERR_FORMAT_UNSUPPORTED` for quantised ones. */
  vector(names: TensorNames, length: number): Vector {
    const tensor = this.#take(names, [length])
    if (!VECTOR_FORMATS.has(tensor.format)) {
      throw new TandemError(
        'ERR_FORMAT_UNSUPPORTED',
        `${this.#path(tensor)}: tensor ${tensor.name} is a vector in ${tensor.format}; vectors must be F32, F16 or BF16`,
      )
    }
    return { tensor, length }
  }

  /** A vector that may be absent, unless `presence` says otherwise. */
  optionalVector(names: TensorNames, length: number, presence: Presence = 'optional'): Vector | undefined {
    if (presence === 'optional' && !names.some((name) => this.has(name))) return undefined
    return this.vector(names, length)
  }

  /** Throws `ERR_TENSOR_UNEXPECTED` for a tensor that no role took, except those that `isIgnored` accepts. */
  checkAllUsed(isIgnored: (name: string) => boolean): void {
    for (const tensor of this.#file.tensors.values()) {
      if (this.#used.has(tensor.name) || isIgnored(tensor.name)) continue
      throw new TandemError(
        'ERR_TENSOR_UNEXPECTED',
        `${this.#path(tensor)}: the architecture has no use for tensor ${tensor.name}; leaving it out would change the model's results`,
      )
    }
  }

  #take(names: TensorNames, shape: readonly number[]): TensorInfo {
    const tensor = names.map((name) => this.#file.tensors.get(name)).find((found) => found !== undefined)
    if (tensor === undefined) throw this.#missing(names)
    if (!isSameShape(tensor.shape, shape)) {
      throw new TandemError(
        'ERR_TENSOR_SHAPE',
        `${this.#path(tensor)}: tensor ${tensor.name} has the shape [${tensor.shape.join(', ')}], ` +
          `but the hyperparameters call for [${shape.join(', ')}]`,
      )
    }
    this.#used.add(tensor.name)
    return tensor
  }

  #missing(names: TensorNames): TandemError {
    const layer = /^blk\.(\d+)\./.exec(names[0])?.[1]
    const where = layer === undefined ? '' : ` of layer ${layer}`
    const aliases = names.length > 1 ? ` (nor as ${names.slice(1).join(', ')})` : ''
    return new TandemError(
      'ERR_TENSOR_MISSING',
      `${this.#file.paths[0]}: tensor ${names[0]}${where} is not in the file${aliases}; the model was converted or split incompletely`,
    )
  }

  #path(tensor: TensorInfo): string {
    return this.#file.paths[tensor.shard]!
  }
}

/** Shapes are equal up to trailing ones: one expert's matrix may be stored with two dimensions or three. */
function isSameShape(a: readonly number[], b: readonly number[]): boolean {
  return Array.from({ length: Math.max(a.length, b.length) }, (_, axis) => (a[axis] ?? 1) === (b[axis] ?? 1)).every(Boolean)
}
