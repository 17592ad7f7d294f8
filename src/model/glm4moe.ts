/**
 * GLM-4.5, 4.5-Air, 4.6, 4.7: grouped-query attention with partial rope, leading dense layers, then routed experts beside a shared one.
 * Sources: https://huggingface.co/zai-org/GLM-4.5 (config.json), https://github.com/ggml-org/llama.cpp/blob/master/src/models/glm4-moe.cpp
 */
import type { Architecture } from './architecture.ts'

export const glm4moe: Architecture = {
  name: 'glm4moe',
  models: ['GLM-4.5', 'GLM-4.5-Air', 'GLM-4.6', 'GLM-4.7'],
  rope: { defaultShare: 0.5 },
  defaultGating: 'sigmoid',
  defaultNormalizeWeights: false,
  tensors: {
    attentionNorm: ['attn_norm.weight'],
    // The norm before the feed-forward part, in spite of its name.
    ffnNorm: ['post_attention_norm.weight'],
    // Some older files lack the suffix.
    selectionBias: { names: ['exp_probs_b.bias', 'exp_probs_b'], sigmoid: 'required', softmax: 'optional' },
    attentionBias: 'optional',
    // The large models have them, Air does not.
    headNorm: 'optional',
  },
}
