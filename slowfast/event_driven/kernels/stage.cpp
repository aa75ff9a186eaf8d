// A stage of an evMLP on any number of rows: linear layers, GELU, residual connections and LayerNorm in one call.
//
// Tests compare this with the PyTorch implementation in network.py.

#include <algorithm>
#include <memory>
#include <type_traits>

#include <omp.h>

#include "arithmetic.h"

namespace {

// Output features computed at a time, in as many vectors as fit the registers.
#ifdef __AVX512F__
constexpr int PANEL = 64;
#else
constexpr int PANEL = 16;
#endif
constexpr int VECTORS = PANEL / LANES, BYTES = 4 * LANES;
constexpr int TILE = 6;              // rows computed at a time
constexpr int STEP = PANEL * 4;      // bytes of the weights of a panel per step
constexpr int STEPS = 32768 / STEP;  // steps whose weights stay in the L1 cache while all rows are multiplied
constexpr int AHEAD = 4096;          // prefetch distance in bytes for the first rows

struct Layer {  // weight: (panels, steps, PANEL, inputs per step)
  const void* weight;
  const float *bias, *scale;  // (panels * PANEL,)
  int64_t in, panels;
};

struct Norm {
  const float *weight, *bias;
  float eps;
};

}  // namespace

extern "C" {

struct Stage {
  int64_t width, blocks;
  Layer embed;
  const Layer *first, *last;  // of each block's MLP
  const Norm* norms;
};
}

namespace {

enum Epilogue { NONE, GELU, ADD_OUT };  // ADD_OUT: adds what the output contains

// Type of the outputs: hidden activations are stored in the type that is multiplied, all others in float32.
template <class A, Epilogue epilogue>
using Output = typename std::conditional<epilogue == GELU, typename A::Value, float>::type;

// Block of a layer's weights: some steps of a panel. sums: partial sums of all rows.
struct Block {
  const char* weights;
  int64_t steps, panel;
  bool first, last;
  float* sums;
};

// Multiplies ROWS rows by a block, and prefetches LINES cache lines per step into the L2 cache.
template <class A, Epilogue epilogue, int LINES, int ROWS>
__attribute__((noinline)) void tile(const typename A::Value* x, int64_t x_stride, const Layer& layer,
                                    const Block& block, float* partial, const char* fetch, Output<A, epilogue>* out,
                                    int64_t out_stride) {
  Floats sums[ROWS][VECTORS] = {};
  if (!block.first)
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sums[r][v] = load(partial + r * PANEL + v * LANES);
  const char* w = block.weights;
  for (int64_t k = 0; k < block.steps; k++, w += STEP, x += A::INPUTS) {
#pragma GCC unroll 4
    for (int line = 0; line < LINES; line++, fetch += 64) __builtin_prefetch(fetch, 0, 2);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
      Floats value = A::broadcast(x + r * x_stride);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sums[r][v] = A::multiply_add(sums[r][v], value, w + v * BYTES);
    }
  }
  int64_t channel = block.panel * PANEL;
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++, channel += LANES) {
      if (!block.last) {
        store(partial + r * PANEL + v * LANES, sums[r][v]);
        continue;
      }
      Floats y = sums[r][v];
      if (layer.scale) y *= load(layer.scale + channel);
      y += load(layer.bias + channel);
      Output<A, epilogue>* place = out + r * out_stride + channel;
      if constexpr (epilogue == GELU) {
        A::put(place, gelu(y));
      } else {
        if (epilogue == ADD_OUT) y += load(place);
        store(place, y);
      }
    }
    channel -= PANEL;
  }
}

// Multiplies up to TILE rows by a block.
template <class A, Epilogue epilogue, int LINES>
void tile_of(int64_t rows, const typename A::Value* x, int64_t x_stride, const Layer& layer, const Block& block,
             float* partial, const char* fetch, Output<A, epilogue>* out, int64_t stride) {
  switch (rows) {
    case 1: tile<A, epilogue, LINES, 1>(x, x_stride, layer, block, partial, fetch, out, stride); break;
    case 2: tile<A, epilogue, LINES, 2>(x, x_stride, layer, block, partial, fetch, out, stride); break;
    case 3: tile<A, epilogue, LINES, 3>(x, x_stride, layer, block, partial, fetch, out, stride); break;
    case 4: tile<A, epilogue, LINES, 4>(x, x_stride, layer, block, partial, fetch, out, stride); break;
    case 5: tile<A, epilogue, LINES, 5>(x, x_stride, layer, block, partial, fetch, out, stride); break;
    default: tile<A, epilogue, LINES, TILE>(x, x_stride, layer, block, partial, fetch, out, stride);
  }
}

// Multiplies all rows by a block. next: the stored weights of the next block.
template <class A, class W, Epilogue epilogue>
void multiply_block(const typename A::Value* x, int64_t x_stride, int64_t rows, const Layer& layer,
                      const Block& block, const char* next, Output<A, epilogue>* out, int64_t stride) {
  constexpr bool DIRECT = sizeof(W) == sizeof(typename A::Value);
  constexpr int64_t LINES = STEP / 64, STORED = PANEL * A::INPUTS * sizeof(W);  // bytes of stored weights per step
  constexpr int64_t PARTS = (STORED + 63) / 64;
  // The first tile waits for the weights; the following tiles prefetch the next block, a part each.
  for (int64_t r = 0, part = -1; r < rows; r += TILE, part++) {
    const typename A::Value* in = x + r * x_stride;
    float* partial = block.sums + r * PANEL;
    Output<A, epilogue>* place = out + r * stride;
    const char* fetch = next + part * block.steps * 64;
    if (part < 0 && DIRECT)
      tile_of<A, epilogue, LINES>(rows - r, in, x_stride, layer, block, partial, block.weights + AHEAD, place, stride);
    else if (0 <= part && part < PARTS)
      tile_of<A, epilogue, 1>(rows - r, in, x_stride, layer, block, partial, fetch, place, stride);
    else
      tile_of<A, epilogue, 0>(rows - r, in, x_stride, layer, block, partial, nullptr, place, stride);
  }
}

// Multiplies rows by some panels of a layer, block by block. sums: (rows, PANEL) partial sums.
template <class A, class W, Epilogue epilogue>
void multiply_panels(const typename A::Value* x, int64_t x_stride, int64_t rows, const Layer& layer, int64_t first,
             int64_t last, float* sums, Output<A, epilogue>* out, int64_t stride) {
  constexpr bool DIRECT = sizeof(W) == sizeof(typename A::Value);
  constexpr int64_t VECTOR = LANES * A::INPUTS;  // stored weights per vector
  int64_t steps = (layer.in + A::INPUTS - 1) / A::INPUTS;
  const W* stored = static_cast<const W*>(layer.weight) + first * steps * VECTORS * VECTOR;
  alignas(64) char unpacked[STEPS * STEP];
  for (int64_t panel = first; panel < last; panel++) {
    for (int64_t from = 0; from < steps; from += STEPS) {
      int64_t n = std::min<int64_t>(STEPS, steps - from);
      const char* here = reinterpret_cast<const char*>(stored);
      if (!DIRECT)
        for (int64_t v = 0; v < n * VECTORS; v++) {
          __builtin_prefetch(reinterpret_cast<const char*>(stored + v * VECTOR) + AHEAD, 0, 2);
          A::unpack(stored + v * VECTOR, unpacked + v * BYTES);
        }
      stored += n * VECTORS * VECTOR;
      Block block = {DIRECT ? here : unpacked, n, panel, from == 0, from + n == steps, sums};
      const char* next = reinterpret_cast<const char*>(stored);
      multiply_block<A, W, epilogue>(x + from * A::INPUTS, x_stride, rows, layer, block, next, out, stride);
    }
  }
}

// Applies LayerNorm to a row (width,), in place.
void normalize(float* x, int64_t width, const Norm& norm) {
  float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; i++) sum += x[i];
  float mean = sum / width;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; i++) squares += (x[i] - mean) * (x[i] - mean);
  float scale = 1.0f / std::sqrt(squares / width + norm.eps);
#pragma omp simd
  for (int64_t i = 0; i < width; i++) x[i] = (x[i] - mean) * scale * norm.weight[i] + norm.bias[i];
}

// Converts a float32 row to the type that is multiplied, padded with zeros to `length`, a multiple of the step.
template <class A>
void convert(const float* x, int64_t width, typename A::Value* to, int64_t length) {
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES) A::put(to + i, load(x + i));
  for (; i < length; i += LANES) {
    float rest[LANES] = {};
    for (int64_t j = i; j < std::min<int64_t>(width, i + LANES); j++) rest[j - i] = x[j];
    typename A::Value put[LANES];
    A::put(put, load(rest));
    std::memcpy(to + i, put, std::min<int64_t>(LANES, length - i) * sizeof *to);
  }
}

// Scratch memory of a thread; it grows on demand and is reused by later calls.
char* scratch(int64_t bytes) {
  thread_local std::unique_ptr<char[]> kept;
  thread_local int64_t size = 0;
  if (size < bytes) kept.reset(new char[size = bytes]);
  return kept.get();
}

// Activations of a stage. Linear layers multiply a converted copy, except in float32.
template <class A>
struct Buffers {
  static constexpr bool COPIES = sizeof(typename A::Value) < sizeof(float);
  int64_t x_stride, stride, hidden_stride = 0;
  typename A::Value *x, *y, *hidden;  // input, tokens, hidden activations of a block
  float* sums;                        // (threads, rows, PANEL)

  Buffers(const Stage& stage, int64_t rows, int64_t threads) {
    x_stride = COPIES ? (stage.embed.in + A::INPUTS - 1) / A::INPUTS * A::INPUTS : stage.embed.in;
    stride = stage.embed.panels * PANEL;
    for (int64_t b = 0; b < stage.blocks; b++) hidden_stride = std::max(hidden_stride, stage.first[b].panels * PANEL);
    int64_t copied = COPIES ? stride + x_stride : 0, added_up = threads * rows * PANEL;
    sums = reinterpret_cast<float*>(scratch(added_up * sizeof(float) + rows * (hidden_stride + copied) * sizeof *x));
    hidden = reinterpret_cast<typename A::Value*>(sums + added_up);
    y = hidden + rows * hidden_stride;
    x = y + rows * stride;
  }
};

// Work of one thread in a stage: part of the panels of every layer for part of the rows. Panels are split first, so
// that every weight is read by as few threads as possible.
struct Share {
  int64_t me = 0, threads = 1, panel_parts = 1, from = 0, to;

  explicit Share(int64_t rows) : to(rows) {}

  Share(const Stage& stage, int64_t rows, int64_t me, int64_t threads) : me(me), threads(threads) {
    panel_parts = std::min(threads, stage.embed.panels);
    int64_t row_parts = std::max<int64_t>(std::min(threads / panel_parts, rows / TILE), 1), part = me / panel_parts;
    from = part < row_parts ? rows * part / row_parts : rows;
    to = part < row_parts ? rows * (part + 1) / row_parts : rows;
  }

  template <class A, class W, Epilogue epilogue>
  void multiply(const typename A::Value* x, int64_t x_stride, const Layer& layer, float* sums, Output<A, epilogue>* out,
                int64_t stride) const {
    int64_t part = me % panel_parts;
    int64_t first = layer.panels * part / panel_parts, last = layer.panels * (part + 1) / panel_parts, rows = to - from;
    if (rows > 0)
      multiply_panels<A, W, epilogue>(x + from * x_stride, x_stride, rows, layer, first, last, sums,
                                      out + from * stride, stride);
  }

  void wait() const {
    if (threads > 1) {
#pragma omp barrier
    }
  }
};

// Runs a stage: x (rows, in) -> out (rows, panels * PANEL).
template <class A, class W>
void run_stage(const Stage& stage, const float* x, int64_t rows, float* out, Buffers<A> buffers, const Share& share) {
  typedef typename A::Value Value;
  const int64_t stride = buffers.stride, width = stage.width;
  const Value *in = buffers.x, *y = buffers.y;
  if constexpr (Buffers<A>::COPIES) {
    for (int64_t r = share.me; r < rows; r += share.threads)
      convert<A>(x + r * stage.embed.in, stage.embed.in, buffers.x + r * buffers.x_stride, buffers.x_stride);
    share.wait();
  } else {
    in = x, y = out;
  }
  float* sums = buffers.sums + share.me * rows * PANEL;
  share.multiply<A, W, NONE>(in, buffers.x_stride, stage.embed, sums, out, stride);
  for (int64_t b = 0; b <= stage.blocks; b++) {
    share.wait();
    for (int64_t r = share.me; r < rows; r += share.threads) {
      if (b > 0) normalize(out + r * stride, width, stage.norms[b - 1]);
      if constexpr (Buffers<A>::COPIES)
        if (b < stage.blocks) convert<A>(out + r * stride, width, buffers.y + r * stride, stride);
    }
    if (b == stage.blocks) break;
    share.wait();
    share.multiply<A, W, GELU>(y, stride, stage.first[b], sums, buffers.hidden, buffers.hidden_stride);
    share.wait();
    share.multiply<A, W, ADD_OUT>(buffers.hidden, buffers.hidden_stride, stage.last[b], sums, out, stride);
  }
}

// Splits every layer among the threads.
template <class A, class W>
void share_layers(const Stage& stage, const float* x, int64_t rows, float* out, int threads) {
  Buffers<A> shared(stage, rows, threads);
#pragma omp parallel num_threads(threads)
  run_stage<A, W>(stage, x, rows, out, shared, Share(stage, rows, omp_get_thread_num(), omp_get_num_threads()));
}

// Distributes groups of rows over the threads, each of which runs the full stage without synchronization.
template <class A, class W>
void share_rows(const Stage& stage, const float* x, int64_t rows, float* out, int threads, int64_t group) {
  int64_t groups = (rows + group - 1) / group;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t g = 0; g < groups; g++) {
    int64_t start = g * group, n = std::min(group, rows - start);
    Buffers<A> own(stage, n, 1);
    run_stage<A, W>(stage, x + start * stage.embed.in, n, out + start * own.stride, own, Share(n));
  }
}

template <class A, class W>
void run(const Stage& stage, const float* x, int64_t rows, float* out, int threads, int64_t group) {
  if (group)
    share_rows<A, W>(stage, x, rows, out, threads, group);
  else
    share_layers<A, W>(stage, x, rows, out, threads);
}

#ifdef __AVX512BF16__
typedef Pairs Short;  // arithmetic for weights of fewer than 4 bytes
#else
typedef Singles Short;
#endif

}  // namespace

extern "C" {

int panel() { return PANEL; }

int tile_rows() { return TILE; }

// Input features per step for weights of so many bytes: 4 for float32, 2 for bfloat16, 1 for int8.
int inputs_per_step(int bytes) { return bytes == 4 ? Singles::INPUTS : Short::INPUTS; }

// Computes the tokens of `rows` patches: x (rows, in) -> out (rows, panels * PANEL).
// group: rows that a thread processes at a time; 0 if the threads share the weights.
void stage_rows(const Stage* stage, int bytes, const float* x, int64_t rows, float* out, int threads, int64_t group) {
  if (bytes == 4)
    run<Singles, float>(*stage, x, rows, out, threads, group);
  else if (bytes == 2)
    run<Short, uint16_t>(*stage, x, rows, out, threads, group);
  else
    run<Short, int8_t>(*stage, x, rows, out, threads, group);
}
}
