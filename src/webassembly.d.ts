/**
 * The part of the WebAssembly JavaScript API that Tandem uses. TypeScript declares it in its DOM library alone, which would also bring
 * every global of a browser into scope. Specification: https://webassembly.github.io/spec/js-api/
 */
declare namespace WebAssembly {
  interface MemoryDescriptor {
    /** Pages of 64 KiB. */
    readonly initial: number
    readonly maximum?: number
    readonly shared?: boolean
  }

  class Memory {
    constructor(descriptor: MemoryDescriptor)
    readonly buffer: ArrayBuffer | SharedArrayBuffer
    grow(pages: number): number
  }

  class Global<T = unknown> {
    constructor(descriptor: { readonly value: 'i32' | 'i64' | 'f32' | 'f64'; readonly mutable?: boolean }, value?: T)
    value: T
  }

  class Table {
    readonly length: number
  }

  type ExportValue = Memory | Global | Table | ((...args: never[]) => unknown)
  type ImportValue = Memory | Global | Table | ((...args: never[]) => unknown) | number
  type Exports = Record<string, ExportValue>
  type Imports = Record<string, Record<string, ImportValue>>
  type ExternalKind = 'function' | 'global' | 'memory' | 'table' | 'tag'

  class Module {
    constructor(bytes: BufferSource)
    static exports(module: Module): { name: string; kind: ExternalKind }[]
    static imports(module: Module): { module: string; name: string; kind: ExternalKind }[]
    static customSections(module: Module, name: string): ArrayBuffer[]
  }

  class Instance {
    constructor(module: Module, imports?: Imports)
    readonly exports: Exports
  }

  class CompileError extends Error {}
  class LinkError extends Error {}
  class RuntimeError extends Error {}

  type BufferSource = ArrayBuffer | SharedArrayBuffer | ArrayBufferView

  function validate(bytes: BufferSource): boolean
  function compile(bytes: BufferSource): Promise<Module>
  function instantiate(module: Module, imports?: Imports): Promise<Instance>
}
