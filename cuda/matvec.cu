/* Products with 1 to DECODE_TOKENS vectors: grids and calls of the kernels in matvec_quantized.cuh and matvec_float.cuh. */
#include "matvec_float.cuh"
#include "matvec_quantized.cuh"

/* Rows of a block: up to MOST_ROWS where all blocks run at once, WAVE_ROWS otherwise. OTHERS: shared memory left for small kernels. */
enum { MOST_ROWS = 48, WAVE_ROWS = 16, BLOCK_RESERVE = 1024, OTHERS = 12 * 1024 };

/* How a call is cut into blocks: their rows, units of a ring, and bytes of shared memory. */
struct cutting {
  int block_rows, ring;
  size_t bytes;
};

/*
 * Blocks that begin early are put wherever there is room, so each asks for an equal share of a multiprocessor's shared memory: no more of them fit
 * there than an even distribution gives it. Wanted are the rows with which that distribution leaves the fewest places empty; of several that are
 * about as good the least. unit_bytes: of a unit of every warp; partial_bytes: of sums for each row; ys: blocks with the same rows.
 */
static cutting cut_rows(const tcu_engine &e, const matvec_call &call, int passes, int ys, int most_blocks, int unit_bytes, int partial_bytes) {
  int rows = 0;
  for (int i = 0; i < call.stacked; i++) rows += call.rows[i];
  cutting best = {WAVE_ROWS, LEAST_RING, (size_t)(LEAST_RING * unit_bytes + WAVE_ROWS * partial_bytes)};
  double best_share = 0;
  for (int block_rows = WARP_ROWS; block_rows <= MOST_ROWS; block_rows += WARP_ROWS) {
    int64_t blocks = 0;
    for (int i = 0; i < call.stacked; i++) blocks += (int64_t)((call.rows[i] + block_rows - 1) / block_rows) * ys;
    const int64_t at_once = (blocks + e.multiprocessors - 1) / e.multiprocessors;
    if (at_once > most_blocks) continue;
    const int bytes = (int)((e.shared_bytes - OTHERS) / at_once) - BLOCK_RESERVE;
    const int room = (bytes - block_rows * partial_bytes) / unit_bytes, units = passes * (block_rows / WARP_ROWS);
    if (room < LEAST_RING) continue;
    const int turns = (units + MATVEC_WARPS - 1) / MATVEC_WARPS;
    const double busy = (double)rows * ys * passes / ((double)at_once * e.multiprocessors * turns * MATVEC_WARPS * WARP_ROWS);
    /* with so few warps they wait for themselves */
    const double share = at_once <= 2 ? 0.9 * busy : busy;
    if (share < best_share + 0.03) continue;
    best_share = share;
    const int ring = room >= MOST_RING ? (int)MOST_RING : room >= 6 ? 6 : room > 4 ? 4 : room;
    best = {block_rows, ring, (size_t)bytes};
  }
  return best;
}

/* Numbers the blocks, now that their rows are known; how many there are. */
static unsigned set_blocks(matvec_call &call) {
  int blocks = 0;
  for (int i = 0; i < call.stacked; i++) {
    call.first_blocks[i] = blocks;
    blocks += (call.rows[i] + call.block_rows - 1) / call.block_rows;
  }
  return (unsigned)blocks;
}

template <class W, int TOKENS> static int launch_quantized(const tcu_engine &e, matvec_call &call, int ys) {
  slicing cut;
  cut.row_blocks = call.columns / W::ELEMENTS;
  cut.slices = (cut.row_blocks + tile<W>::BLOCKS - 1) / tile<W>::BLOCKS;
  cut.slice_blocks = (cut.row_blocks + cut.slices - 1) / cut.slices;
  cut.passes = cut.slices * call.jobs;
  const int partial_bytes = (int)sizeof(float) * cut.passes * TOKENS;
  const cutting chosen = cut_rows(e, call, cut.passes, ys, blocks_at_once(TOKENS), MATVEC_WARPS * tile<W>::UNIT_BYTES, partial_bytes);
  call.block_rows = chosen.block_rows;
  cut.groups = chosen.block_rows / WARP_ROWS;
  cut.ring = chosen.ring;
  const auto kernel = matvec_quantized_kernel<W, TOKENS>;
  CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)chosen.bytes));
  launch_after(e, kernel, dim3(set_blocks(call), (unsigned)ys), MATVEC_THREADS, chosen.bytes, call, cut);
  return TCU_OK;
}

template <class W, int TOKENS> static int launch_float(const tcu_engine &e, matvec_call &call, int ys) {
  int rows = 0;
  for (int i = 0; i < call.stacked; i++) rows += call.rows[i];
  /* Few rows, as a router's: one for each block, so that every multiprocessor has some. */
  const bool few = (int64_t)rows * ys < (int64_t)4 * 4 * e.multiprocessors;
  call.block_rows = few ? 1 : 4;
  const size_t bytes = sizeof(float) * (size_t)(MATVEC_WARPS * call.jobs * call.block_rows * TOKENS);
  const auto kernel = few ? matvec_float_kernel<W, TOKENS, 1> : matvec_float_kernel<W, TOKENS, 4>;
  launch_after(e, kernel, dim3(set_blocks(call), (unsigned)ys), MATVEC_THREADS, bytes, call);
  return TCU_OK;
}

template <class W, int TOKENS> static int launch_tokens(const tcu_engine &e, matvec_call &call, int ys) {
  if constexpr (W::ACTIVATION == ACTIVATION_F32) return launch_float<W, TOKENS>(e, call, ys);
  else return launch_quantized<W, TOKENS>(e, call, ys);
}

/*
 * A product lets nothing begin before it has waited, so whatever is queued behind one that is behind the router begins when the ids are there.
 */
static int launch(tcu_engine &e, int format, matvec_call &call, int ys) {
  call.early = !call.ids || e.ids_settled;
  e.ids_settled = true;
  const int status = with_format(
      format,
      [&](auto row) {
        typedef decltype(row) W;
        const int vectors = W::ACTIVATION == ACTIVATION_F32 ? call.tokens : call.tokens * call.x.digits;
        if (vectors == 1) return launch_tokens<W, 1>(e, call, ys);
        if (vectors <= 4) return launch_tokens<W, 4>(e, call, ys);
        return launch_tokens<W, DECODE_TOKENS>(e, call, ys);
      },
      [=] { return failed(TCU_FORMAT, "matvec: no kernel for format %d", format); });
  if (status != TCU_OK) return status;
  CHECK_LAUNCH("matvec");
  return TCU_OK;
}

static matvec_call call_of(int kind, const tcu_matrix &w, const activations &x, float *y, int y_stride) {
  matvec_call call = {};
  call.kind = kind;
  call.matrices[0] = (const uint8_t *)w.address;
  call.rows[0] = w.rows;
  call.columns = w.columns;
  call.tokens = call.jobs = call.used = call.stacked = 1;
  call.expert_bytes[0] = w.expert_bytes;
  call.x = x;
  call.y = y;
  call.y_stride = y_stride;
  return call;
}

int matvec(tcu_engine &e, const tcu_matrix &w, const activations &x, float *y, int y_stride, int flags, const float *bias, int tokens) {
  matvec_call call = call_of(MATVEC_STORE, w, x, y, y_stride);
  call.add = flags & MATMUL_ADD;
  call.biases[0] = bias;
  call.tokens = tokens;
  return launch(e, w.format, call, 1);
}

int matvec_stacked(tcu_engine &e, const stacked_matrix *stack, int count, const activations &x, float *y, int y_stride, int tokens) {
  /* as many at once as have the same format */
  for (int first = 0, next; first < count; first = next) {
    matvec_call call = call_of(MATVEC_STORE, stack[first].w, x, y, y_stride);
    for (next = first; next < count && next - first < MOST_STACKED && stack[next].w.format == stack[first].w.format; next++) {
      call.matrices[next - first] = (const uint8_t *)stack[next].w.address;
      call.biases[next - first] = stack[next].bias;
      call.rows[next - first] = stack[next].w.rows;
      y += stack[next].w.rows;
    }
    call.stacked = next - first;
    call.tokens = tokens;
    CHECK(launch(e, stack[first].w.format, call, 1));
  }
  return TCU_OK;
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
