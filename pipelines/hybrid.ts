/** The GPU does everything but the routed experts, which stay in host memory and run on the WASM pool. */
import { definePipeline } from '../src/pipeline/define.ts'

export default definePipeline({ name: 'hybrid', executor: 'cuda', stages: { routedExperts: 'wasm' } })
