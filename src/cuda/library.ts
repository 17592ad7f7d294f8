/** The CUDA library as typed functions. */
import {
  CUDA_ABI_VERSION,
  CUDA_FUNCTIONS,
  CUDA_STATUS,
  CUDA_STRUCTS,
  type CudaField,
  type CudaFunctionName,
  type CudaParameter,
  type CudaStructName,
} from '../abi/cuda.ts'
import { type ErrorCode, TandemError } from '../errors.ts'
import { type Koffi, loadKoffi } from '../native/koffi.ts'

/** An opaque pointer to something that the library owns. */
export type Handle = bigint

/** Host memory: an address, or a view whose bytes stay where they are; null for nothing. */
export type HostPointer = number | ArrayBufferView | null

interface Scalars {
  readonly i32: number
  /** Sizes and addresses; both stay below 2^53. */
  readonly u64: number
  readonly f32: number
  readonly pointer: HostPointer
  readonly chars128: string
  readonly engine: Handle
  readonly graph: Handle
}

type FieldsOf<Name extends CudaStructName> = (typeof CUDA_STRUCTS)[Name][number]

/** A struct of the boundary as an object. Structs inside it may be left out: all their bytes are 0 then. */
export type CudaStruct<Name extends CudaStructName> = {
  readonly [Field in FieldsOf<Name> as Field[1] extends keyof Scalars ? Field[0] : never]: Field[1] extends keyof Scalars
    ? Scalars[Field[1]]
    : never
} & {
  readonly [Field in FieldsOf<Name> as Field[1] extends CudaStructName ? Field[0] : never]?: Field[1] extends CudaStructName
    ? CudaStruct<Field[1]> | undefined
    : never
}

type Value<Type> = Type extends keyof Scalars ? Scalars[Type] : Type extends CudaStructName ? CudaStruct<Type> | null : never

type Inputs<Parameters> = Parameters extends readonly [infer First, ...infer Rest]
  ? First extends readonly [string, infer Type, 'in']
    ? [Value<Type>, ...Inputs<Rest>]
    : Inputs<Rest>
  : []

type Output<Parameters> = Parameters extends readonly [...unknown[], readonly [string, infer Type, 'out']] ? NonNullable<Value<Type>> : void

/** The exported functions: what they write is returned, a status other than ok is thrown. */
export type CudaFunctions = {
  readonly [Name in CudaFunctionName]: (...inputs: Inputs<(typeof CUDA_FUNCTIONS)[Name]>) => Output<(typeof CUDA_FUNCTIONS)[Name]>
}

/** A loaded library. */
export interface CudaLibrary {
  readonly path: string
  readonly functions: CudaFunctions
  /** The address of a view's first byte, which does not change as long as its buffer lives. */
  readonly address: (view: ArrayBufferView) => number
}

/** What each status becomes. */
const ERROR_CODES: ReadonlyMap<number, ErrorCode> = new Map([
  [CUDA_STATUS.argument, 'ERR_KERNEL'],
  [CUDA_STATUS.format, 'ERR_FORMAT_UNSUPPORTED'],
  [CUDA_STATUS.shape, 'ERR_KERNEL'],
  [CUDA_STATUS.memory, 'ERR_MEMORY'],
  [CUDA_STATUS.absent, 'ERR_DEVICE_ABSENT'],
  [CUDA_STATUS.device, 'ERR_DEVICE'],
  [CUDA_STATUS.lost, 'ERR_DEVICE_LOST'],
  [CUDA_STATUS.timeout, 'ERR_TIMEOUT'],
  [CUDA_STATUS.poisoned, 'ERR_POISONED'],
])

/** The error that a status stands for. `text`: what the library says about it. */
export function statusError(status: number, what: string, text = ''): TandemError {
  return new TandemError(ERROR_CODES.get(status) ?? 'ERR_INTERNAL', text === '' ? `${what}: status ${status}` : `${what}: ${text}`)
}

type KoffiType = ReturnType<Koffi['struct']>
type Native = (...values: unknown[]) => number

const TEXT_BYTES = 512

/** koffi's types for the table's names. */
function bindTypes(koffi: Koffi): (type: CudaField[1] | CudaParameter[1]) => KoffiType {
  const types = new Map<string, KoffiType>([
    ['i32', koffi.type('int32_t')],
    ['u64', koffi.type('uint64_t')],
    ['f32', koffi.type('float')],
    ['pointer', koffi.type('void *')],
    ['chars128', koffi.array('char', 128, 'String')],
    ['engine', koffi.type('void *')],
    ['graph', koffi.type('void *')],
  ])
  for (const [name, fields] of Object.entries(CUDA_STRUCTS)) {
    types.set(name, koffi.struct(Object.fromEntries(fields.map(([field, type]) => [field, types.get(type)!]))))
  }
  return (type) => types.get(type)!
}

/** One function; `fail` throws the error of a status. */
function bindFunction(
  native: Native,
  parameters: readonly CudaParameter[],
  fail: (status: number) => never,
): (...inputs: never[]) => unknown {
  const out = parameters.find(([, , direction]) => direction === 'out')
  if (!out) {
    return (...inputs) => {
      const status = native(...inputs)
      if (status !== CUDA_STATUS.ok) fail(status)
    }
  }
  const isStruct = out[1] in CUDA_STRUCTS
  return (...inputs) => {
    const result: unknown[] | object = isStruct ? {} : [null]
    const status = native(...inputs, result)
    if (status !== CUDA_STATUS.ok) fail(status)
    return isStruct ? result : (result as unknown[])[0]
  }
}

/** Loads a library. Throws `ERR_DEVICE_ABSENT` when it cannot be used: no such file, no driver beside it, another version of the boundary. */
export async function loadCudaLibrary(path: string): Promise<CudaLibrary> {
  const koffi = await loadKoffi()
  const handle = open(koffi, path)
  const type = bindTypes(koffi)
  const isStruct = (name: string): boolean => name in CUDA_STRUCTS
  const native = (name: string, parameters: readonly CudaParameter[]): Native => {
    const types = parameters.map(([, parameter, direction]) => {
      if (direction === 'out') return koffi.out(koffi.pointer(type(parameter)))
      return isStruct(parameter) ? koffi.pointer(type(parameter)) : type(parameter)
    })
    try {
      return handle.func(name, 'int32_t', types) as Native
    } catch (cause) {
      throw new TandemError('ERR_DEVICE_ABSENT', `${path} has no ${name}: it is not a library of this version of Tandem`, { cause })
    }
  }
  const errorText = native('tcu_error_text', CUDA_FUNCTIONS.tcu_error_text)
  const fail = (name: string, status: number): never => {
    const text = new Uint8Array(TEXT_BYTES)
    errorText(text, TEXT_BYTES)
    const length = text.indexOf(0)
    throw statusError(status, name, new TextDecoder().decode(text.subarray(0, length < 0 ? TEXT_BYTES : length)))
  }
  const functions = Object.fromEntries(
    Object.entries(CUDA_FUNCTIONS).map(([name, parameters]) => [
      name,
      bindFunction(native(name, parameters), parameters, (status) => fail(name, status)),
    ]),
  ) as unknown as CudaFunctions
  const version = functions.tcu_abi_version()
  if (version !== CUDA_ABI_VERSION) {
    throw new TandemError('ERR_DEVICE_ABSENT', `${path} has version ${version} of the boundary, not ${CUDA_ABI_VERSION}: build it again`)
  }
  return { path, functions, address: (view) => Number(koffi.address(view)) }
}

function open(koffi: Koffi, path: string): ReturnType<Koffi['load']> {
  try {
    return koffi.load(path)
  } catch (cause) {
    throw new TandemError('ERR_DEVICE_ABSENT', `the CUDA library cannot be loaded: ${TandemError.from(cause).message}`, { cause })
  }
}
