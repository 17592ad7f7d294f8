/* Products with 1 to DECODE_TOKENS tokens: grids and calls of the kernels in matvec_quantized.cuh and matvec_float.cuh. */
#include "matvec_float.cuh"
#include "matvec_quantized.cuh"

/* Blocks per multiprocessor below which rows are not put together, and the most rows of a block. */
enum { LEAST_BLOCKS = 6, MOST_BLOCK_ROWS = 32, LEAST_TILES = 32 };

/*
 * Rows of a block: few enough that all multiprocessors have blocks, else enough that a warp has LEAST_TILES tiles to stream. `ys`: blocks with the
 * same rows.
 */
static int choose_rows(const tcu_engine &e, int rows, int passes, int ys) {
  int block_rows = WARP_ROWS;
  const auto blocks = [&](int of) { return (int64_t)((rows + of - 1) / of) * ys; };
  while (block_rows < MOST_BLOCK_ROWS && block_rows * passes < LEAST_TILES * MATVEC_WARPS &&
         blocks(2 * block_rows) >= (int64_t)LEAST_BLOCKS * e.multiprocessors) {
    block_rows *= 2;
  }
  return block_rows;
}

template <class W, int TOKENS> static void launch_quantized(const tcu_engine &e, matvec_call &call, int ys) {
  slicing cut;
  cut.row_blocks = call.columns / W::ELEMENTS;
  cut.slices = (cut.row_blocks + tile<W>::BLOCKS - 1) / tile<W>::BLOCKS;
  cut.slice_blocks = (cut.row_blocks + cut.slices - 1) / cut.slices;
  cut.passes = cut.slices * call.jobs;
  call.block_rows = choose_rows(e, call.rows, cut.passes, ys);
  const size_t bytes = MATVEC_WARPS * RING_TILES * tile<W>::BYTES + sizeof(float) * (size_t)(cut.passes * call.block_rows * TOKENS);
  const dim3 grid((unsigned)((call.rows + call.block_rows - 1) / call.block_rows), (unsigned)ys);
  matvec_quantized_kernel<W, TOKENS><<<grid, MATVEC_THREADS, bytes, e.stream>>>(call, cut);
}

template <class W, int TOKENS> static void launch_float(const tcu_engine &e, matvec_call &call, int ys) {
  /* Few rows, as a router's: one for each block, so that every multiprocessor has some. */
  const bool few = (int64_t)call.rows * ys < (int64_t)4 * 4 * e.multiprocessors;
  call.block_rows = few ? 1 : 4;
  const size_t bytes = sizeof(float) * (size_t)(MATVEC_WARPS * call.jobs * call.block_rows * TOKENS);
  const dim3 grid((unsigned)((call.rows + call.block_rows - 1) / call.block_rows), (unsigned)ys);
  if (few) matvec_float_kernel<W, TOKENS, 1><<<grid, MATVEC_THREADS, bytes, e.stream>>>(call);
  else matvec_float_kernel<W, TOKENS, 4><<<grid, MATVEC_THREADS, bytes, e.stream>>>(call);
}

template <class W, int TOKENS> static void launch_tokens(const tcu_engine &e, matvec_call &call, int ys) {
  if constexpr (W::ACTIVATION == ACTIVATION_F32) launch_float<W, TOKENS>(e, call, ys);
  else launch_quantized<W, TOKENS>(e, call, ys);
}

static int launch(const tcu_engine &e, int format, matvec_call &call, int ys) {
  const int status = with_format(
      format,
      [&](auto row) {
        typedef decltype(row) W;
        if (call.tokens == 1) launch_tokens<W, 1>(e, call, ys);
        else if (call.tokens <= 4) launch_tokens<W, 4>(e, call, ys);
        else launch_tokens<W, DECODE_TOKENS>(e, call, ys);
        return (int)TCU_OK;
      },
      [] { return (int)TCU_FORMAT; });
  if (status != TCU_OK) return failed(status, "matvec: no kernel for format %d", format);
  CHECK_LAUNCH("matvec");
  return TCU_OK;
}

static matvec_call call_of(int kind, const tcu_matrix &w, const activations &x, float *y, int y_stride) {
  matvec_call call = {};
  call.kind = kind;
  call.matrices[0] = (const uint8_t *)w.address;
  call.rows = w.rows;
  call.columns = w.columns;
  call.tokens = call.jobs = call.used = 1;
  call.expert_bytes[0] = w.expert_bytes;
  call.x = x;
  call.y = y;
  call.y_stride = y_stride;
  return call;
}

int matvec(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens) {
  matvec_call call = call_of(MATVEC_STORE, w, x, y, y_stride);
  call.add = flags & MATMUL_ADD;
  call.bias = bias;
  call.tokens = tokens;
  return launch(e, w.format, call, 1);
}

int matvec_gated(tcu_engine &e, const tcu_ffn &ffn, const activations &x, int tokens) {
  const int columns = ffn.gate.rows, forms = form_of(ffn.down.format);
  if (ffn.gate.format != ffn.up.format) {
    CHECK(matvec(e, ffn.gate, x, e.b.gated, 2 * columns, MATMUL_STORE, nullptr, tokens));
    CHECK(matvec(e, ffn.up, x, e.b.gated + columns, 2 * columns, MATMUL_STORE, nullptr, tokens));
    return silu_and_quantize(e, e.b.hidden, forms, e.b.gated, columns, tokens);
  }
  matvec_call call = call_of(MATVEC_GATED, ffn.gate, x, e.b.hidden.rows, columns);
  call.matrices[1] = (const uint8_t *)ffn.up.address;
  call.jobs = 2;
  call.tokens = tokens;
  CHECK(launch(e, ffn.gate.format, call, 1));
  return quantize_rows(e, e.b.hidden, forms, columns, tokens);
}

/* The routed experts' part of a call: pairs (token, expert) as the router left them. */
static void set_experts(const tcu_engine &e, matvec_call &call) {
  call.ids = e.b.expert_ids;
  call.expert_weights = e.b.expert_weights;
  call.used = e.shape.experts_used;
}

/* e.b.hidden = silu(gate) * up of every pair, in the forms that `down` wants. */
static int gate_experts(tcu_engine &e, const tcu_ffn &ffn, int pairs) {
  const int columns = ffn.gate.rows, forms = form_of(ffn.down.format);
  if (ffn.gate.format != ffn.up.format) {
    for (int i = 0; i < 2; i++) {
      const tcu_matrix &w = i ? ffn.up : ffn.gate;
      matvec_call call = call_of(MATVEC_STORE, w, e.b.normed, e.b.gated + i * columns, 2 * columns);
      set_experts(e, call);
      CHECK(launch(e, w.format, call, pairs));
    }
    return silu_and_quantize(e, e.b.hidden, forms, e.b.gated, columns, pairs);
  }
  matvec_call call = call_of(MATVEC_GATED, ffn.gate, e.b.normed, e.b.hidden.rows, columns);
  call.matrices[1] = (const uint8_t *)ffn.up.address;
  call.expert_bytes[1] = ffn.up.expert_bytes;
  call.jobs = 2;
  set_experts(e, call);
  CHECK(launch(e, ffn.gate.format, call, pairs));
  return quantize_rows(e, e.b.hidden, forms, columns, pairs);
}

int matvec_experts(tcu_engine &e, const tcu_ffn &ffn, int tokens) {
  CHECK(gate_experts(e, ffn, tokens * e.shape.experts_used));
  matvec_call call = call_of(MATVEC_MIXED, ffn.down, e.b.hidden, e.b.routed, ffn.down.rows);
  set_experts(e, call);
  call.jobs = call.used;
  return launch(e, ffn.down.format, call, tokens);
}
