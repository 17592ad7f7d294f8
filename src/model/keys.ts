/** Reads single hyperparameters from metadata, with their bounds. Every error is `ERR_HPARAMS_INVALID` and names the key. */
import { TandemError } from '../errors.ts'
import type { MetadataValue, ModelFile } from '../gguf/types.ts'

/** Inclusive bounds. */
export interface Bounds {
  readonly min: number
  readonly max: number
}

/** Typed access to the keys under one architecture's prefix. */
export class Keys {
  readonly #file: ModelFile
  /** The architecture's name, before the dot. */
  readonly prefix: string

  constructor(file: ModelFile, prefix: string) {
    this.#file = file
    this.prefix = prefix
  }

  /** The value under `PREFIX.key`, whatever it is. */
  raw(key: string): MetadataValue | undefined {
    return this.#file.metadata.get(`${this.prefix}.${key}`)
  }

  /** A whole number. An array counts as its value when all elements are equal: converters write some keys per layer. */
  integer(key: string, bounds: Bounds, fallback?: number): number {
    const value = this.#number(key, fallback)
    if (!Number.isSafeInteger(value)) throw this.error(key, `must be a whole number, not ${value}`)
    return this.#bounded(key, value, bounds)
  }

  /** A finite number. */
  real(key: string, bounds: Bounds, fallback?: number): number {
    return this.#bounded(key, this.#number(key, fallback), bounds)
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.raw(key) ?? fallback
    if (typeof value !== 'boolean') throw this.error(key, 'must be a bool')
    return value
  }

  text(key: string, fallback: string): string {
    const value = this.raw(key) ?? fallback
    if (typeof value !== 'string') throw this.error(key, 'must be text')
    return value
  }

  /** The error for a key. */
  error(key: string, problem: string): TandemError {
    return new TandemError('ERR_HPARAMS_INVALID', `${this.#file.paths[0]}: ${this.prefix}.${key} ${problem}`)
  }

  /** The error for a key that contradicts the tensors. `key` is complete. */
  mismatch(key: string, problem: string): TandemError {
    return new TandemError('ERR_HPARAMS_INVALID', `${this.#file.paths[0]}: ${key} ${problem}`)
  }

  #number(key: string, fallback: number | undefined): number {
    const raw = this.raw(key) ?? fallback
    if (raw === undefined) throw this.error(key, 'is missing; the model was converted incompletely')
    const value = Array.isArray(raw) ? this.#uniform(key, raw) : raw
    if (typeof value !== 'number') throw this.error(key, `must be a number, not ${typeof value === 'bigint' ? value : typeof value}`)
    return value
  }

  #uniform(key: string, values: readonly MetadataValue[]): MetadataValue {
    const first = values[0]
    if (first === undefined) throw this.error(key, 'is an empty array')
    if (values.some((value) => value !== first)) throw this.error(key, 'differs from layer to layer, which is not supported')
    return first
  }

  #bounded(key: string, value: number, { min, max }: Bounds): number {
    if (!(value >= min && value <= max)) throw this.error(key, `is ${value}, outside ${min} to ${max}`)
    return value
  }
}
