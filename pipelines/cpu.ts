/** Everything on the WASM pool: runs on any machine. */
import { definePipeline } from '../src/pipeline/define.ts'

export default definePipeline({ name: 'cpu', executor: 'wasm' })
