// evMLP's stages on any number of rows: products, GELU, residual and LayerNorm in one call.
//
// Compiled on first use by compiled.py; network.py has the plain PyTorch counterpart that the tests compare it with.

#include <algorithm>
#include <memory>
#include <type_traits>

#include <omp.h>

#include "arithmetic.h"

namespace {

// Output channels computed together, in as many vectors as there are registers for.
#ifdef __AVX512F__
constexpr int PANEL = 64;
#else
constexpr int PANEL = 16;
#endif
constexpr int VECTORS = PANEL / LANES, BYTES = 4 * LANES;
constexpr int TILE = 6;              // rows computed together
constexpr int STEP = PANEL * 4;      // bytes of a panel's weights in a step
constexpr int STEPS = 32768 / STEP;  // of weights that stay in the fastest cache while all rows pass
constexpr int AHEAD = 4096;          // bytes by which weights are fetched ahead for the first rows

struct Layer {  // weight: panels of PANEL output channels, in each (steps, PANEL, inputs of a step)
  const void* weight;
  const float *bias, *scale;  // for all panels
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

enum After { NOTHING, GELU, PLUS_OUT };  // PLUS_OUT: what is at the output already is added

// What hidden activations are kept in, and all else.
template <class A, After after>
using Output = typename std::conditional<after == GELU, typename A::Value, float>::type;

// A piece of a layer's weights: so many steps of a panel. sums: where the pieces of all rows are added up.
struct Piece {
  const char* weights;
  int64_t steps, panel;
  bool first, last;
  float* sums;
};

// Rows times a piece. Meanwhile LINES lines a step are fetched into the second cache.
template <class A, After after, int LINES, int ROWS>
__attribute__((noinline)) void tile(const typename A::Value* x, int64_t x_stride, const Layer& layer,
                                    const Piece& piece, float* so_far, const char* fetch, Output<A, after>* out,
                                    int64_t out_stride) {
  Floats sums[ROWS][VECTORS] = {};
  if (!piece.first)
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sums[r][v] = load(so_far + r * PANEL + v * LANES);
  const char* w = piece.weights;
  for (int64_t k = 0; k < piece.steps; k++, w += STEP, x += A::INPUTS) {
#pragma GCC unroll 4
    for (int line = 0; line < LINES; line++, fetch += 64) __builtin_prefetch(fetch, 0, 2);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
      Floats value = A::broadcast(x + r * x_stride);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sums[r][v] = A::multiply_add(sums[r][v], value, w + v * BYTES);
    }
  }
  int64_t channel = piece.panel * PANEL;
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++, channel += LANES) {
      if (!piece.last) {
        store(so_far + r * PANEL + v * LANES, sums[r][v]);
        continue;
      }
      Floats y = sums[r][v];
      if (layer.scale) y *= load(layer.scale + channel);
      y += load(layer.bias + channel);
      Output<A, after>* place = out + r * out_stride + channel;
      if constexpr (after == GELU) {
        A::put(place, gelu(y));
      } else {
        if (after == PLUS_OUT) y += load(place);
        store(place, y);
      }
    }
    channel -= PANEL;
  }
}

// Up to TILE rows times a piece.
template <class A, After after, int LINES>
void tile_of(int64_t rows, const typename A::Value* x, int64_t x_stride, const Layer& layer, const Piece& piece,
             float* so_far, const char* fetch, Output<A, after>* out, int64_t stride) {
  switch (rows) {
    case 1: tile<A, after, LINES, 1>(x, x_stride, layer, piece, so_far, fetch, out, stride); break;
    case 2: tile<A, after, LINES, 2>(x, x_stride, layer, piece, so_far, fetch, out, stride); break;
    case 3: tile<A, after, LINES, 3>(x, x_stride, layer, piece, so_far, fetch, out, stride); break;
    case 4: tile<A, after, LINES, 4>(x, x_stride, layer, piece, so_far, fetch, out, stride); break;
    case 5: tile<A, after, LINES, 5>(x, x_stride, layer, piece, so_far, fetch, out, stride); break;
    default: tile<A, after, LINES, TILE>(x, x_stride, layer, piece, so_far, fetch, out, stride);
  }
}

// All rows times a piece. next: the stored weights of the piece that follows.
template <class A, class W, After after>
void rows_times_piece(const typename A::Value* x, int64_t x_stride, int64_t rows, const Layer& layer,
                      const Piece& piece, const char* next, Output<A, after>* out, int64_t stride) {
  constexpr bool as_used = sizeof(W) == sizeof(typename A::Value);
  constexpr int64_t LINES = STEP / 64, STORED = PANEL * A::INPUTS * sizeof(W);  // bytes of stored weights a step
  constexpr int64_t PARTS = (STORED + 63) / 64;
  // The first rows wait for the weights; the next ones bring the next piece, each a part of it.
  for (int64_t r = 0, part = -1; r < rows; r += TILE, part++) {
    const typename A::Value* in = x + r * x_stride;
    float* so_far = piece.sums + r * PANEL;
    Output<A, after>* place = out + r * stride;
    const char* fetch = next + part * piece.steps * 64;
    if (part < 0 && as_used)
      tile_of<A, after, LINES>(rows - r, in, x_stride, layer, piece, so_far, piece.weights + AHEAD, place, stride);
    else if (0 <= part && part < PARTS)
      tile_of<A, after, 1>(rows - r, in, x_stride, layer, piece, so_far, fetch, place, stride);
    else
      tile_of<A, after, 0>(rows - r, in, x_stride, layer, piece, so_far, nullptr, place, stride);
  }
}

// Rows of x times some panels of a layer, piece by piece. sums: (rows, PANEL) for a layer of several pieces.
template <class A, class W, After after>
void product(const typename A::Value* x, int64_t x_stride, int64_t rows, const Layer& layer, int64_t first,
             int64_t last, float* sums, Output<A, after>* out, int64_t stride) {
  constexpr bool as_used = sizeof(W) == sizeof(typename A::Value);
  constexpr int64_t VECTOR = LANES * A::INPUTS;  // stored weights that become one vector
  int64_t steps = (layer.in + A::INPUTS - 1) / A::INPUTS;
  const W* stored = static_cast<const W*>(layer.weight) + first * steps * VECTORS * VECTOR;
  alignas(64) char unpacked[STEPS * STEP];
  for (int64_t panel = first; panel < last; panel++) {
    for (int64_t from = 0; from < steps; from += STEPS) {
      int64_t n = std::min<int64_t>(STEPS, steps - from);
      const char* here = reinterpret_cast<const char*>(stored);
      if (!as_used)
        for (int64_t v = 0; v < n * VECTORS; v++) {
          __builtin_prefetch(reinterpret_cast<const char*>(stored + v * VECTOR) + AHEAD, 0, 2);
          A::unpack(stored + v * VECTOR, unpacked + v * BYTES);
        }
      stored += n * VECTORS * VECTOR;
      Piece piece = {as_used ? here : unpacked, n, panel, from == 0, from + n == steps, sums};
      const char* next = reinterpret_cast<const char*>(stored);
      rows_times_piece<A, W, after>(x + from * A::INPUTS, x_stride, rows, layer, piece, next, out, stride);
    }
  }
}

// LayerNorm of a row (width), in place.
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

// A row in float32 as what it is multiplied as; zeros follow it up to `length`, a whole number of steps.
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

// Memory that only grows, for what a call needs while it runs.
char* room(int64_t bytes) {
  thread_local std::unique_ptr<char[]> kept;
  thread_local int64_t size = 0;
  if (size < bytes) kept.reset(new char[size = bytes]);
  return kept.get();
}

// Rows on their way through a stage. What is multiplied is a copy, except in float32.
template <class A>
struct Room {
  static constexpr bool COPIES = sizeof(typename A::Value) < sizeof(float);
  int64_t x_stride, stride, hidden_stride = 0;
  typename A::Value *x, *y, *hidden;  // the stage's input, its tokens, a block's hidden channels
  float* sums;                        // (threads, rows, PANEL)

  Room(const Stage& stage, int64_t rows, int64_t threads) {
    x_stride = COPIES ? (stage.embed.in + A::INPUTS - 1) / A::INPUTS * A::INPUTS : stage.embed.in;
    stride = stage.embed.panels * PANEL;
    for (int64_t b = 0; b < stage.blocks; b++) hidden_stride = std::max(hidden_stride, stage.first[b].panels * PANEL);
    int64_t copied = COPIES ? stride + x_stride : 0, added_up = threads * rows * PANEL;
    sums = reinterpret_cast<float*>(room(added_up * sizeof(float) + rows * (hidden_stride + copied) * sizeof *x));
    hidden = reinterpret_cast<typename A::Value*>(sums + added_up);
    y = hidden + rows * hidden_stride;
    x = y + rows * stride;
  }
};

// What one of several threads does of a stage: a part of every layer's panels for a part of the rows. It takes as many
// threads for the panels as there are, so that each weight is read by few.
struct Share {
  int64_t me = 0, threads = 1, panel_parts = 1, from = 0, to;

  explicit Share(int64_t rows) : to(rows) {}

  Share(const Stage& stage, int64_t rows, int64_t me, int64_t threads) : me(me), threads(threads) {
    panel_parts = std::min(threads, stage.embed.panels);
    int64_t row_parts = std::max<int64_t>(std::min(threads / panel_parts, rows / TILE), 1), part = me / panel_parts;
    from = part < row_parts ? rows * part / row_parts : rows;
    to = part < row_parts ? rows * (part + 1) / row_parts : rows;
  }

  template <class A, class W, After after>
  void multiply(const typename A::Value* x, int64_t x_stride, const Layer& layer, float* sums, Output<A, after>* out,
                int64_t stride) const {
    int64_t part = me % panel_parts;
    int64_t first = layer.panels * part / panel_parts, last = layer.panels * (part + 1) / panel_parts, rows = to - from;
    if (rows > 0)
      product<A, W, after>(x + from * x_stride, x_stride, rows, layer, first, last, sums, out + from * stride, stride);
  }

  void wait() const {
    if (threads > 1) {
#pragma omp barrier
    }
  }
};

// Rows through a stage: x (rows, in) -> out (rows, panels * PANEL).
template <class A, class W>
void through(const Stage& stage, const float* x, int64_t rows, float* out, Room<A> room, const Share& share) {
  typedef typename A::Value Value;
  const int64_t stride = room.stride, width = stage.width;
  const Value *in = room.x, *y = room.y;
  if constexpr (Room<A>::COPIES) {
    for (int64_t r = share.me; r < rows; r += share.threads)
      convert<A>(x + r * stage.embed.in, stage.embed.in, room.x + r * room.x_stride, room.x_stride);
    share.wait();
  } else {
    in = x, y = out;
  }
  float* sums = room.sums + share.me * rows * PANEL;
  share.multiply<A, W, NOTHING>(in, room.x_stride, stage.embed, sums, out, stride);
  for (int64_t b = 0; b <= stage.blocks; b++) {
    share.wait();
    for (int64_t r = share.me; r < rows; r += share.threads) {
      if (b > 0) normalize(out + r * stride, width, stage.norms[b - 1]);
      if constexpr (Room<A>::COPIES)
        if (b < stage.blocks) convert<A>(out + r * stride, width, room.y + r * stride, stride);
    }
    if (b == stage.blocks) break;
    share.wait();
    share.multiply<A, W, GELU>(y, stride, stage.first[b], sums, room.hidden, room.hidden_stride);
    share.wait();
    share.multiply<A, W, PLUS_OUT>(room.hidden, room.hidden_stride, stage.last[b], sums, out, stride);
  }
}

// Threads share every layer.
template <class A, class W>
void by_panels(const Stage& stage, const float* x, int64_t rows, float* out, int threads) {
  Room<A> shared(stage, rows, threads);
#pragma omp parallel num_threads(threads)
  through<A, W>(stage, x, rows, out, shared, Share(stage, rows, omp_get_thread_num(), omp_get_num_threads()));
}

// Threads take groups of rows through the whole stage, without waiting for one another.
template <class A, class W>
void by_rows(const Stage& stage, const float* x, int64_t rows, float* out, int threads, int64_t group) {
  int64_t groups = (rows + group - 1) / group;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t g = 0; g < groups; g++) {
    int64_t start = g * group, n = std::min(group, rows - start);
    Room<A> own(stage, n, 1);
    through<A, W>(stage, x + start * stage.embed.in, n, out + start * own.stride, own, Share(n));
  }
}

template <class A, class W>
void run(const Stage& stage, const float* x, int64_t rows, float* out, int threads, int64_t group) {
  if (group)
    by_rows<A, W>(stage, x, rows, out, threads, group);
  else
    by_panels<A, W>(stage, x, rows, out, threads);
}

#ifdef __AVX512BF16__
typedef Pairs Short;  // how weights of fewer than 4 bytes are multiplied
#else
typedef Singles Short;
#endif

}  // namespace

extern "C" {

int panel() { return PANEL; }

int tile_rows() { return TILE; }

// Input channels in a step of weights that are stored in so many bytes: 4 for float32, 2 for bfloat16, 1 for int8.
int inputs_of_a_step(int bytes) { return bytes == 4 ? Singles::INPUTS : Short::INPUTS; }

// Tokens of `rows` patches: x (rows, in) -> out (rows, panels * PANEL).
// group: rows that a thread takes through the stage at a time; 0 if threads are to share the weights instead.
void stage_rows(const Stage* stage, int bytes, const float* x, int64_t rows, float* out, int threads, int64_t group) {
  if (bytes == 4)
    run<Singles, float>(*stage, x, rows, out, threads, group);
  else if (bytes == 2)
    run<Short, uint16_t>(*stage, x, rows, out, threads, group);
  else
    run<Short, int8_t>(*stage, x, rows, out, threads, group);
}
}
