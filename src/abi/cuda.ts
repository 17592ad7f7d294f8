/**
 * The CUDA library's boundary as data: the twin of `cuda/tandem_cuda.h`, which documents every struct and function. The binding is generated from
 * these tables (`src/cuda/library.ts`). Names are the header's in camel case, without its prefix where the prefix says nothing.
 */

/** The version of the boundary that `tcu_abi_version` must answer. */
export const CUDA_ABI_VERSION = 3

/** The most that `top` of a shape may be. */
export const CUDA_MOST_TOP = 64

/** What every function returns. */
export const CUDA_STATUS = {
  ok: 0,
  argument: 1,
  format: 2,
  shape: 3,
  memory: 4,
  absent: 5,
  device: 6,
  lost: 7,
  timeout: 8,
  poisoned: 9,
} as const

/** What the head leaves in host memory, as bits. */
export const CUDA_RESULTS = { logits: 1, hidden: 2 } as const

/** What a step works on, a row for each of its tokens: `tcu_read_rows`, `tcu_write_rows`. */
export const CUDA_ROWS = { x: 0, shared: 1, routed: 2, expertIds: 3, expertWeights: 4 } as const

/** A struct of the boundary. */
export type CudaStructName = 'device' | 'shape' | 'matrix' | 'ffn' | 'layer' | 'model' | 'slot' | 'host' | 'step'

/** A field: a number, an address in host memory, text of 128 bytes that ends in 0, or a struct that lies inside. */
export type CudaFieldType = 'i32' | 'u64' | 'f32' | 'pointer' | 'chars128' | CudaStructName

/** A field's name and type. */
export type CudaField = readonly [name: string, type: CudaFieldType]

/** Fields in the order of C, which lays them out by natural alignment. A struct comes after those it contains. */
export const CUDA_STRUCTS = {
  device: [
    ['name', 'chars128'],
    ['bytes', 'u64'],
    ['freeBytes', 'u64'],
    ['major', 'i32'],
    ['minor', 'i32'],
    ['multiprocessors', 'i32'],
    ['driver', 'i32'],
  ],
  shape: [
    ['hidden', 'i32'],
    ['heads', 'i32'],
    ['kvHeads', 'i32'],
    ['headDim', 'i32'],
    ['rotary', 'i32'],
    ['vocabulary', 'i32'],
    ['layers', 'i32'],
    ['ffn', 'i32'],
    ['ffnExpert', 'i32'],
    ['experts', 'i32'],
    ['expertsUsed', 'i32'],
    ['deviceExperts', 'i32'],
    ['gating', 'i32'],
    ['normalizeWeights', 'i32'],
    ['weightsScale', 'f32'],
    ['epsilon', 'f32'],
    ['ubatch', 'i32'],
    ['sequences', 'i32'],
    ['outputs', 'i32'],
    ['kvBlocks', 'i32'],
    ['blocksPerSequence', 'i32'],
    ['top', 'i32'],
    ['digits', 'i32'],
    ['deadlineMs', 'i32'],
  ],
  matrix: [
    ['address', 'u64'],
    ['expertBytes', 'u64'],
    ['format', 'i32'],
    ['rows', 'i32'],
    ['columns', 'i32'],
    ['experts', 'i32'],
  ],
  ffn: [
    ['gate', 'matrix'],
    ['up', 'matrix'],
    ['down', 'matrix'],
  ],
  layer: [
    ['attentionNorm', 'u64'],
    ['qBias', 'u64'],
    ['kBias', 'u64'],
    ['vBias', 'u64'],
    ['qNorm', 'u64'],
    ['kNorm', 'u64'],
    ['q', 'matrix'],
    ['k', 'matrix'],
    ['v', 'matrix'],
    ['output', 'matrix'],
    ['keyCache', 'u64'],
    ['valueCache', 'u64'],
    ['ffnNorm', 'u64'],
    ['dense', 'ffn'],
    ['router', 'matrix'],
    ['selectionBias', 'u64'],
    ['shared', 'ffn'],
    ['routed', 'ffn'],
  ],
  model: [
    ['embedding', 'matrix'],
    ['outputNorm', 'u64'],
    ['head', 'matrix'],
  ],
  slot: [
    ['normed', 'pointer'],
    ['q8x32', 'pointer'],
    ['q8x256', 'pointer'],
    ['expertIds', 'pointer'],
    ['expertWeights', 'pointer'],
    ['routed', 'pointer'],
    ['entry', 'i32'],
    ['holds', 'i32'],
  ],
  host: [
    ['poison', 'pointer'],
    ['published', 'pointer'],
    ['completed', 'pointer'],
    ['finished', 'pointer'],
    ['status', 'pointer'],
    ['logits', 'pointer'],
    ['hidden', 'pointer'],
    ['topIds', 'pointer'],
    ['topLogits', 'pointer'],
    ['marks', 'pointer'],
    ['markCount', 'i32'],
  ],
  step: [
    ['tokenIds', 'pointer'],
    ['positions', 'pointer'],
    ['cacheRows', 'pointer'],
    ['outputs', 'pointer'],
    ['runs', 'pointer'],
    ['blockTables', 'pointer'],
    ['tokenCount', 'i32'],
    ['runCount', 'i32'],
    ['outputCount', 'i32'],
    ['mostKeys', 'i32'],
  ],
} as const satisfies Record<CudaStructName, readonly CudaField[]>

/** A parameter: a number, a handle, an address in host memory, or a struct, which is passed by its address. */
export type CudaParameterType = 'i32' | 'u64' | 'engine' | 'graph' | 'pointer' | CudaStructName

/** A parameter's name, its type, and whether the function writes it through a pointer. */
export type CudaParameter = readonly [name: string, type: CudaParameterType, direction: 'in' | 'out']

const engine = ['engine', 'engine', 'in'] as const
const layer = ['layer', 'i32', 'in'] as const

/** The exported functions with their parameters in order; all return a status as i32. */
export const CUDA_FUNCTIONS = {
  tcu_abi_version: [['version', 'i32', 'out']],
  tcu_device_count: [['count', 'i32', 'out']],
  tcu_device_info: [
    ['index', 'i32', 'in'],
    ['info', 'device', 'out'],
  ],
  tcu_error_text: [
    ['text', 'pointer', 'in'],
    ['bytes', 'i32', 'in'],
  ],

  tcu_buffer_bytes: [
    ['shape', 'shape', 'in'],
    ['bytes', 'u64', 'out'],
  ],
  tcu_open: [
    ['device', 'i32', 'in'],
    ['shape', 'shape', 'in'],
    ['ropeFrequencies', 'pointer', 'in'],
    ['engine', 'engine', 'out'],
  ],
  tcu_close: [engine],

  tcu_register: [engine, ['address', 'pointer', 'in'], ['bytes', 'u64', 'in']],
  tcu_memory: [engine, ['bytes', 'u64', 'in'], ['address', 'u64', 'out']],
  tcu_clear: [engine, ['address', 'u64', 'in'], ['bytes', 'u64', 'in']],
  tcu_upload: [engine, ['lane', 'i32', 'in'], ['address', 'u64', 'in'], ['host', 'pointer', 'in'], ['bytes', 'u64', 'in']],
  tcu_upload_wait: [engine, ['lane', 'i32', 'in']],

  tcu_attach: [engine, ['host', 'host', 'in']],
  tcu_bind_model: [engine, ['model', 'model', 'in']],
  tcu_bind_layer: [engine, layer, ['weights', 'layer', 'in'], ['slot', 'slot', 'in']],

  tcu_begin_step: [engine, ['step', 'step', 'in']],
  tcu_embed: [engine],
  tcu_attention: [engine, layer],
  tcu_dense_ffn: [engine, layer],
  tcu_router: [engine, layer],
  tcu_publish: [engine, layer],
  tcu_shared_experts: [engine, layer],
  tcu_routed_experts: [engine, layer],
  tcu_await_routed: [engine, layer],
  tcu_combine: [engine, layer],
  tcu_head: [engine, ['results', 'i32', 'in'], ['top', 'i32', 'in']],
  tcu_read_rows: [engine, ['rows', 'i32', 'in'], ['host', 'pointer', 'in']],
  tcu_write_rows: [engine, ['rows', 'i32', 'in'], ['host', 'pointer', 'in']],
  tcu_end_step: [engine],
  tcu_mark: [engine, ['index', 'i32', 'in']],

  tcu_capture_begin: [engine],
  tcu_capture_end: [engine, ['graph', 'graph', 'out']],
  tcu_graph_launch: [engine, ['graph', 'graph', 'in']],
  tcu_graph_free: [engine, ['graph', 'graph', 'in']],

  tcu_is_idle: [engine, ['idle', 'i32', 'out']],
  tcu_clock: [engine, ['ns', 'u64', 'out']],
} as const satisfies Record<string, readonly CudaParameter[]>

/** The name of an exported function. */
export type CudaFunctionName = keyof typeof CUDA_FUNCTIONS
