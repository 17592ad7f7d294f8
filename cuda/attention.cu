/* attend: rope and cache store, then the kernel that suits the step. The host knows the step's numbers only, never what is in device memory. */
#include <math.h>
#include "attention.cuh"

int check_attention(const tcu_shape &shape) {
  if (shape.heads <= 0 || shape.kv_heads <= 0 || shape.heads % shape.kv_heads != 0) {
    return failed(TCU_SHAPE, "attention: %d heads are no multiple of %d KV heads", shape.heads, shape.kv_heads);
  }
  if (shape.head_dim <= 0 || shape.head_dim % 16 != 0 || shape.head_dim > MAX_HEAD_DIM) {
    return failed(TCU_SHAPE, "attention: head dimension %d is no multiple of 16 up to %d", shape.head_dim, MAX_HEAD_DIM);
  }
  if (shape.rotary < 0 || shape.rotary % 2 != 0 || shape.rotary > shape.head_dim) {
    return failed(TCU_SHAPE, "attention: %d rotary elements in a head of %d", shape.rotary, shape.head_dim);
  }
  return TCU_OK;
}

int attend(tcu_engine &e, const layer_binding &layer, int forms) {
  const tcu_shape &shape = e.shape;
  if (e.step.token_count <= 0) return TCU_OK;
  CHECK(rope_store(e, layer));
  attention_arguments arguments = {};
  arguments.qkv = e.b.qkv;
  arguments.keys = (const __half *)layer.weights.key_cache;
  arguments.values = (const __half *)layer.weights.value_cache;
  arguments.runs = e.b.step.runs;
  arguments.positions = e.b.step.positions;
  arguments.block_tables = e.b.step.block_tables;
  arguments.out = e.b.attended;
  arguments.parts = e.b.parts;
  arguments.heads = shape.heads;
  arguments.kv_heads = shape.kv_heads;
  arguments.group = shape.heads / shape.kv_heads;
  arguments.head_dim = shape.head_dim;
  arguments.blocks_per_sequence = shape.blocks_per_sequence;
  arguments.run_count = e.step.run_count;
  arguments.scale = 1.44269504f / sqrtf((float)shape.head_dim);
  /* No run is empty, so as many tokens as runs means one token each. */
  const bool is_decode = e.step.token_count == e.step.run_count;
  const int quantized_forms = forms & ~FORM_ROWS;
  /* decode works on a head at a time: it can quantise when no block of a record reaches over two heads */
  const bool whole = shape.head_dim % (quantized_forms & FORM_Q8X256 ? 256 : 32) == 0;
  if (is_decode && whole) arguments.forms = quantized_forms;
  CHECK(is_decode ? attend_decode(e, arguments) : attend_prefill(e, arguments));
  if (!quantized_forms || arguments.forms) return TCU_OK;
  return quantize_rows(e, e.b.attended, quantized_forms, shape.heads * shape.head_dim, e.step.token_count);
}
