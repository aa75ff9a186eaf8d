// Linear layers: rows times weights, block by block.
//
// Weights are stored as (panels, steps, PANEL, inputs per step): a panel is what is computed at a time, a step is 4 bytes
// of a row.

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

// Steps of a layer.
template <class A>
int64_t steps_of(const Layer& layer) {
  return (layer.in + A::INPUTS - 1) / A::INPUTS;
}

// Weights of a panel of a layer, stored as W.
template <class A, class W>
const W* panel_of(const Layer& layer, int64_t panel) {
  return static_cast<const W*>(layer.weight) + panel * steps_of<A>(layer) * PANEL * A::INPUTS;
}

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

// Multiplies ROWS rows by a block of weights, and prefetches LINES cache lines per step. sums (ROWS, PANEL): added to,
// or overwritten if `first`.
template <class A, class W, int ROWS, int LINES>
__attribute__((noinline)) void tile(const typename A::Value* x, int64_t x_stride, const W* w, int64_t steps, bool first,
                                    float* sums, Prefetch fetch) {
  typedef typename A::Sum Sum;
  Sum totals[ROWS][VECTORS] = {};
  if (!first)
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) totals[r][v] = read<Sum>(sums + r * PANEL + v * LANES);
  for (int64_t k = 0; k < steps; k++, w += PANEL * A::INPUTS, x += A::INPUTS) {
#pragma GCC unroll 4
    for (int line = 0; line < LINES; line++) __builtin_prefetch(fetch.from + line * 64, 0, 2);
    fetch.from += fetch.advance;
    decltype(A::weights(w)) weights[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      weights[v] = A::weights(w + v * LANES * A::INPUTS);
      if (ROWS > 1) keep_in_register(weights[v]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
      auto value = A::broadcast(x + r * x_stride);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) totals[r][v] = A::multiply_add(totals[r][v], value, weights[v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) store(sums + r * PANEL + v * LANES, (Floats)totals[r][v]);
}

// Multiplies up to TILE rows by a block.
template <class A, class W, int LINES>
void tile_of(int64_t rows, const typename A::Value* x, int64_t x_stride, const W* w, int64_t steps, bool first,
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

// Block of the weights of a panel. fetch: weights that are read next, at the rate at which the block is read if it is
// `streamed`, else before the next block.
template <class W>
struct Block {
  const W* weights;
  int64_t from, steps;
  bool streamed;
  const char* fetch;
};

// Multiplies all rows by a block of weights. sums: (rows, PANEL).
template <class A, class W>
void multiply_block(const Rows<A>& rows, const Block<W>& block, float* sums) {
  constexpr int64_t STORED = PANEL * A::INPUTS * sizeof(W), LINES = lines_per_step<A, W>();
  const int64_t tiles = tiles_of(rows.count), steps = block.steps;
  const int64_t parts = std::min<int64_t>(tiles, PARTS), share = STORED / parts;  // of the next block, in bytes per step
  for (int64_t t = 0; t < tiles; t++) {
    int64_t start = rows.count * t / tiles, count = rows.count * (t + 1) / tiles - start;
    const typename A::Value* x = rows.x + start * rows.stride + block.from * A::INPUTS;
    float* own = sums + start * PANEL;
    const bool first = block.from == 0;
    if (block.streamed && t == 0)
      tile_of<A, W, LINES>(count, x, rows.stride, block.weights, steps, first, own, {block.fetch, STORED});
    else if (!block.streamed && t < parts)
      tile_of<A, W, 1>(count, x, rows.stride, block.weights, steps, first, own,
                       {block.fetch + t * steps * share, share});
    else
      tile_of<A, W, 0>(count, x, rows.stride, block.weights, steps, first, own, {});
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

// Multiplies rows by panels [first, last) of a layer, whose weights are stored as W. sums: scratch (rows, PANEL);
// next: weights that this thread reads afterwards.
template <class A, class W, class Put>
void multiply_panels(const Rows<A>& rows, const Layer& layer, int64_t first, int64_t last, float* sums,
                     const void* next, const Put& put) {
  constexpr int64_t STEP = PANEL * A::INPUTS, AHEAD_STEPS = AHEAD / (STEP * sizeof(W));
  const bool streamed = tiles_of(rows.count) <= lines_per_step<A, W>();  // too few to prefetch a block a line per step
  const int64_t steps = steps_of<A>(layer);
  for (int64_t panel = first; panel < last; panel++) {
    const W* weights = panel_of<A, W>(layer, panel);
    // Where reading ahead leaves this thread's weights.
    const int64_t leaves = panel + 1 < last ? steps : std::max<int64_t>(steps - AHEAD_STEPS, 0);
    for (int64_t from = 0, n; from < steps; from += n, weights += n * STEP) {
      n = std::min<int64_t>(STEPS, (streamed && from < leaves ? leaves : steps) - from);
      const bool left = streamed ? from >= leaves : panel + 1 == last && from + n == steps;
      const void* fetch = left ? next : weights + (streamed ? AHEAD_STEPS : n) * STEP;
      multiply_block<A, W>(rows, {weights, from, n, streamed, static_cast<const char*>(fetch)}, sums);
    }
    finish(rows, layer, panel, sums, put);
  }
}

}  // namespace
