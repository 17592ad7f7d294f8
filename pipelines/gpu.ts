/** Everything on the GPU, for models that fit. */
import { definePipeline } from '../src/pipeline/define.ts'

export default definePipeline({ name: 'gpu', executor: 'cuda' })
