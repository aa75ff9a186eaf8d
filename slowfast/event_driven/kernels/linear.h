// Linear layers: rows times weights, block by block.
//
// Weights are stored as (segments, panels, steps, PANEL, inputs per step): a panel is what is computed at a time, a step
// is 4 bytes of a row. If there are few rows, the segments of a panel are read at the same time: CPUs that prefetch by
// themselves get more out of the memory from several streams (Zen 3, 2 cores: 41 instead of 33 GB/s from two).

#pragma once

#include "arithmetic.h"

namespace {

// Output features computed at a time, in as many vectors as fit the registers.
#if VECTOR_BITS == 512
constexpr int PANEL = 64;
#else
constexpr int PANEL = 16;
#endif
constexpr int VECTORS = PANEL / LANES;
constexpr int TILE = 6;                      // rows computed at a time
constexpr int STEPS = 16384 / (4 * PANEL);   // steps whose weights stay in the L1 cache while all rows are multiplied
constexpr int PARTS = 8;                     // tiles that prefetch a part each of the next block, at most
constexpr int64_t AHEAD = 4096;              // prefetch distance in bytes of weights that are read for the first time
#if VECTOR_BITS == 512  // prefetched by instructions, in one stream
constexpr int SEGMENTS = 1;
#else  // by the CPU
constexpr int SEGMENTS = 2;
#endif
constexpr int64_t SEGMENTED_STEPS = 128;     // least number of steps of a layer with several segments
constexpr int64_t FIRST_BYTES = 512;         // of each segment, prefetched at the end of the layer before

struct Layer {
  const void* weight;
  const float *bias, *scale, *sums;  // (panels * PANEL,); scale and sums: of int8 weights
  int64_t in, panels;
};

// Rows as they are multiplied. first: number of the first one; scale, low: of quantized rows, which are
// scale x + low (low only if they are unsigned).
template <class A>
struct Rows {
  const typename A::Value* x;
  int64_t stride, first, count;
  const float *scale, *low;
};

// Steps of a layer with `in` input features.
template <class A>
int64_t steps_of(int64_t in) {
  return (in + A::INPUTS - 1) / A::INPUTS;
}

// Segments of a layer; steps that are added up together are in the same one.
template <class A>
int64_t segments_of(int64_t in) {
  const int64_t steps = steps_of<A>(in);
  return steps % (SEGMENTS * A::TOGETHER) || steps < SEGMENTED_STEPS ? 1 : SEGMENTS;
}

// Weights of a layer as they are stored, as W, in `segments` of so many steps.
template <class A, class W>
struct Stored {
  static constexpr int64_t STEP = PANEL * A::INPUTS;
  const W* weights;
  int64_t panels, segments, steps;

  explicit Stored(const Layer& layer)
      : weights(static_cast<const W*>(layer.weight)), panels(layer.panels), segments(segments_of<A>(layer.in)),
        steps(steps_of<A>(layer.in) / segments) {}

  // Elements from a segment to the next one.
  int64_t segment() const { return panels * steps * STEP; }

  const W* at(int64_t panel, int64_t number) const { return weights + number * segment() + panel * steps * STEP; }
};

// Cache lines of a step of weights that are stored as W.
template <class A, class W>
constexpr int lines_per_step() {
  return std::max<int>(PANEL * A::INPUTS * sizeof(W) / 64, 1);
}

inline int64_t tiles_of(int64_t rows) { return (rows + TILE - 1) / TILE; }

// Memory to prefetch in every step of a tile.
struct Prefetch {
  const char* from;
  int64_t advance;  // bytes per step
};

// Steps of a block: `count` in each of several segments.
struct Steps {
  int64_t count, segments, x_segment, w_segment;  // the last two: elements from a segment to the next one
};

// Adds the products of ROWS rows and a step of weights, or two steps together.
template <class A, class W, int ROWS, int STEPS_TOGETHER>
inline __attribute__((always_inline)) void step(const typename A::Value* x, int64_t x_stride, const W* w,
                                                typename A::Sum (&totals)[ROWS][VECTORS]) {
  decltype(A::weights(w)) weights[STEPS_TOGETHER][VECTORS];
#pragma GCC unroll 2
  for (int s = 0; s < STEPS_TOGETHER; s++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      weights[s][v] = A::weights(w + (s * VECTORS + v) * LANES * A::INPUTS);
      if (ROWS > 1 && STEPS_TOGETHER == 1) keep_in_register(weights[s][v]);  // there is no register for more
    }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++) {
    auto value = A::broadcast(x + r * x_stride);
    if constexpr (STEPS_TOGETHER == 1) {
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) totals[r][v] = A::multiply_add(totals[r][v], value, weights[0][v]);
    } else {
      auto next = A::broadcast(x + r * x_stride + A::INPUTS);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++)
        totals[r][v] = A::multiply_add(totals[r][v], value, weights[0][v], next, weights[1][v]);
    }
  }
}

// Multiplies ROWS rows by a block of weights, and prefetches LINES cache lines per step. sums (ROWS, PANEL): added to,
// or overwritten if `first`.
template <class A, class W, int ROWS, int LINES>
__attribute__((noinline)) void tile(const typename A::Value* rows, int64_t x_stride, const W* block, const Steps& steps,
                                    bool first, float* sums, Prefetch fetch) {
  typedef typename A::Sum Sum;
  constexpr int64_t STEP = PANEL * A::INPUTS;
  Sum totals[ROWS][VECTORS] = {};
  if (!first)
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) totals[r][v] = read<Sum>(sums + r * PANEL + v * LANES);
  for (int64_t segment = 0; segment < steps.segments; segment++) {
    const typename A::Value* x = rows + segment * steps.x_segment;
    const W* w = block + segment * steps.w_segment;
    const char* next = fetch.from + segment * steps.w_segment * sizeof(W);
    auto prefetch = [&] {
#pragma GCC unroll 4
      for (int line = 0; line < LINES; line++) __builtin_prefetch(next + line * 64, 0, 2);
      next += fetch.advance;
    };
    const int64_t together = steps.count / A::TOGETHER * A::TOGETHER;
    for (int64_t k = 0; k < together; k += A::TOGETHER, w += A::TOGETHER * STEP, x += A::TOGETHER * A::INPUTS) {
#pragma GCC unroll 2
      for (int s = 0; s < A::TOGETHER; s++) prefetch();
      step<A, W, ROWS, A::TOGETHER>(x, x_stride, w, totals);
    }
    if (A::TOGETHER > 1 && together < steps.count) step<A, W, ROWS, 1>(x, x_stride, w, totals);  // the last one
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) store(sums + r * PANEL + v * LANES, (Floats)totals[r][v]);
}

// Multiplies ROWS rows by a panel of a layer with several segments, which are read at the same time. sums (ROWS, PANEL).
template <class A, class W, int ROWS>
__attribute__((noinline)) void stream(const typename A::Value* x, int64_t x_stride, const W* w, const Steps& steps,
                                      float* sums) {
  constexpr int64_t STEP = PANEL * A::INPUTS;
  typename A::Sum totals[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < steps.count; k += A::TOGETHER, w += A::TOGETHER * STEP, x += A::TOGETHER * A::INPUTS) {
#pragma GCC unroll 4
    for (int segment = 0; segment < SEGMENTS; segment++)
      step<A, W, ROWS, A::TOGETHER>(x + segment * steps.x_segment, x_stride, w + segment * steps.w_segment, totals);
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) store(sums + r * PANEL + v * LANES, (Floats)totals[r][v]);
}

// Rows up to which memory limits the speed, so that several streams pay.
template <class A>
constexpr int STREAMED_ROWS = A::QUANTIZED ? 3 : 4;

// Multiplies up to STREAMED_ROWS rows by a panel.
template <class A, class W>
void stream_of(int64_t rows, const typename A::Value* x, int64_t x_stride, const W* w, const Steps& steps,
               float* sums) {
  switch (rows) {
    case 1: return stream<A, W, 1>(x, x_stride, w, steps, sums);
    case 2: return stream<A, W, 2>(x, x_stride, w, steps, sums);
    case 3: return stream<A, W, 3>(x, x_stride, w, steps, sums);
    default: return stream<A, W, STREAMED_ROWS<A>>(x, x_stride, w, steps, sums);
  }
}

// Multiplies up to TILE rows by a block.
template <class A, class W, int LINES>
void tile_of(int64_t rows, const typename A::Value* x, int64_t x_stride, const W* w, const Steps& steps, bool first,
             float* sums, Prefetch fetch) {
  switch (rows) {
    case 1: return tile<A, W, 1, LINES>(x, x_stride, w, steps, first, sums, fetch);
    case 2: return tile<A, W, 2, LINES>(x, x_stride, w, steps, first, sums, fetch);
    case 3: return tile<A, W, 3, LINES>(x, x_stride, w, steps, first, sums, fetch);
    case 4: return tile<A, W, 4, LINES>(x, x_stride, w, steps, first, sums, fetch);
    case 5: return tile<A, W, 5, LINES>(x, x_stride, w, steps, first, sums, fetch);
    default: return tile<A, W, TILE, LINES>(x, x_stride, w, steps, first, sums, fetch);
  }
}

// Block of the weights of a panel, from a step of the layer on. fetch: weights that are read next, at the rate at which
// the block is read if it is `streamed`, else before the next block.
template <class W>
struct Block {
  const W* weights;
  int64_t from;
  Steps steps;
  bool streamed;
  const char* fetch;
};

// Multiplies all rows by a block of weights. sums: (rows, PANEL).
template <class A, class W>
void multiply_block(const Rows<A>& rows, const Block<W>& block, float* sums) {
  constexpr int64_t STORED = PANEL * A::INPUTS * sizeof(W), LINES = lines_per_step<A, W>();
  const int64_t tiles = tiles_of(rows.count), count = block.steps.count;
  const int64_t parts = std::min<int64_t>(tiles, PARTS), share = STORED / parts;  // of the next block, in bytes per step
  for (int64_t t = 0; t < tiles; t++) {
    int64_t start = rows.count * t / tiles, n = rows.count * (t + 1) / tiles - start;
    const typename A::Value* x = rows.x + start * rows.stride + block.from * A::INPUTS;
    float* own = sums + start * PANEL;
    const bool first = block.from == 0;
    if (block.streamed && t == 0)
      tile_of<A, W, LINES>(n, x, rows.stride, block.weights, block.steps, first, own, {block.fetch, STORED});
    else if (!block.streamed && t < parts)
      tile_of<A, W, 1>(n, x, rows.stride, block.weights, block.steps, first, own,
                       {block.fetch + t * count * share, share});
    else
      tile_of<A, W, 0>(n, x, rows.stride, block.weights, block.steps, first, own, {});
  }
}

// Passes the outputs of a panel to put(row, channel, values).
template <class A, class Put>
void finish(const Rows<A>& rows, const Layer& layer, int64_t panel, const float* sums, const Put& put) {
  for (int64_t r = 0; r < rows.count; r++)
    for (int64_t channel = panel * PANEL; channel < (panel + 1) * PANEL; channel += LANES, sums += LANES) {
      Floats y;
      if constexpr (A::QUANTIZED) {
        y = __builtin_convertvector(read<Ints>(sums), Floats) * rows.scale[r];
        if (A::UNSIGNED) y += load(layer.sums + channel) * rows.low[r];
        y *= load(layer.scale + channel);
      } else {
        y = read<Floats>(sums);
      }
      put(rows.first + r, channel, y + load(layer.bias + channel));
    }
}

// Multiplies rows by panels [first, last) of a layer with one segment, block by block. sums: scratch (rows, PANEL); next:
// weights that this thread reads afterwards.
template <class A, class W, class Put>
void multiply_panels(const Rows<A>& rows, const Layer& layer, int64_t first, int64_t last, float* sums,
                     const void* next, const Put& put) {
  constexpr int64_t STEP = PANEL * A::INPUTS, AHEAD_STEPS = AHEAD / (STEP * sizeof(W));
  const bool streamed = tiles_of(rows.count) <= lines_per_step<A, W>();  // too few to prefetch a block a line per step
  const Stored<A, W> stored(layer);
  const int64_t steps = stored.steps;
  for (int64_t panel = first; panel < last; panel++) {
    const W* weights = stored.at(panel, 0);
    // Where reading ahead leaves this thread's weights.
    const int64_t ahead = std::max<int64_t>(steps - AHEAD_STEPS, 0) / A::TOGETHER * A::TOGETHER;
    const int64_t leaves = panel + 1 < last ? steps : ahead;
    for (int64_t from = 0, n; from < steps; from += n, weights += n * STEP) {
      n = std::min<int64_t>(STEPS, (streamed && from < leaves ? leaves : steps) - from);
      const bool left = streamed ? from >= leaves : panel + 1 == last && from + n == steps;
      const void* fetch = left ? next : weights + (streamed ? AHEAD_STEPS : n) * STEP;
      multiply_block<A, W>(rows, {weights, from, {n, 1, 0, 0}, streamed, static_cast<const char*>(fetch)}, sums);
    }
    finish(rows, layer, panel, sums, put);
  }
}

// The same for a layer with several segments: a block has steps of all of them, or of one that is long enough.
template <class A, class W, class Put>
void multiply_segments(const Rows<A>& rows, const Layer& layer, int64_t first, int64_t last, float* sums,
                       const void* next, const Put& put) {
  const Stored<A, W> stored(layer);
  const int64_t x_segment = stored.steps * A::INPUTS, w_segment = stored.segment();
  const int64_t number = SEGMENTS * stored.steps <= STEPS ? SEGMENTS : 1;  // of a block
  auto block_at = [&](int64_t panel, int64_t segment, int64_t k) {
    return stored.at(panel, segment) + k * Stored<A, W>::STEP;
  };
  for (int64_t panel = first; panel < last; panel++) {
    for (int64_t segment = 0; segment < SEGMENTS; segment += number)
      for (int64_t k = 0, n; k < stored.steps; k += n) {
        n = std::min<int64_t>(STEPS, stored.steps - k);
        const void* fetch = k + n < stored.steps           ? block_at(panel, segment, k + n)
                            : segment + number < SEGMENTS ? block_at(panel, segment + number, 0)
                            : panel + 1 < last             ? block_at(panel + 1, 0, 0)
                                                           : next;
        multiply_block<A, W>(rows, {block_at(panel, segment, k), segment * stored.steps + k,
                                    {n, number, x_segment, w_segment}, false, static_cast<const char*>(fetch)}, sums);
      }
    finish(rows, layer, panel, sums, put);
  }
}

// The same for up to STREAMED_ROWS rows: the segments of a panel are read at the same time.
template <class A, class W, class Put>
void stream_panels(const Rows<A>& rows, const Layer& layer, int64_t first, int64_t last, float* sums, const Put& put) {
  const Stored<A, W> stored(layer);
  const Steps steps = {stored.steps, SEGMENTS, stored.steps * A::INPUTS, stored.segment()};
  for (int64_t panel = first; panel < last; panel++) {
    stream_of<A, W>(rows.count, rows.x, rows.stride, stored.at(panel, 0), steps, sums);
    finish(rows, layer, panel, sums, put);
  }
}

// Prefetches the weights with which a thread begins a layer, at a panel.
template <class A, class W>
void prefetch_layer(const Layer& layer, int64_t panel) {
  const Stored<A, W> stored(layer);
  for (int64_t segment = 0; segment < stored.segments; segment++)
    for (int64_t byte = 0; byte < FIRST_BYTES; byte += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(stored.at(panel, segment)) + byte, 0, 2);
}

}  // namespace
