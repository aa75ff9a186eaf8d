// Operations on single rows: LayerNorm, and conversion to the type that is multiplied.

#pragma once

#include "linear.h"

namespace {

struct Norm {
  const float *weight, *bias;
  float eps;
};

// Adds up term(x) of all elements of a row, in several sums that do not wait for each other.
template <class Term>
float sum_of(const float* x, int64_t width, const Term& term) {
  Floats sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES)
    for (int part = 0; part < 4; part++) sums[part] += term(load(x + i + part * LANES));
  for (; i + LANES <= width; i += LANES) sums[0] += term(load(x + i));
  sums[0] = sums[0] + sums[1] + (sums[2] + sums[3]);
  float sum = 0;
  for (int lane = 0; lane < LANES; lane++) sum += sums[0][lane];
  for (; i < width; i++) sum += term(all(x[i]))[0];
  return sum;
}

// Applies LayerNorm to a row (width,): x -> y, which may be x.
inline void normalize(const float* x, int64_t width, const Norm& norm, float* y) {
  const float mean = sum_of(x, width, [](Floats v) { return v; }) / width;
  const float squares = sum_of(x, width, [=](Floats v) { return (v - mean) * (v - mean); });
  const float scale = 1.0f / std::sqrt(squares / width + norm.eps);
#pragma omp simd
  for (int64_t i = 0; i < width; i++) y[i] = (x[i] - mean) * scale * norm.weight[i] + norm.bias[i];
}

// Elements of a row from i on, followed by zeros.
inline Floats rest_of(const float* x, int64_t i, int64_t width) {
  float rest[LANES] = {};
  for (int64_t j = i; j < std::min<int64_t>(width, i + LANES); j++) rest[j - i] = x[j];
  return load(rest);
}

// Range of the numbers of a row, and 0.
struct Range {
  float low, high;

  float magnitude() const { return std::max(-low, high); }
};

// Returns the range of a row; NaN if a number is infinite or NaN.
inline Range range_of(const float* x, int64_t width) {
  Floats low = {}, high = {}, invalid = {};
  for (int64_t i = 0; i < width; i += LANES) {
    Floats v = i + LANES <= width ? load(x + i) : rest_of(x, i, width);
    low = v < low ? v : low;
    high = v > high ? v : high;
    invalid += v - v;
  }
  Range range = {0, 0};
  for (int lane = 0; lane < LANES; lane++) {
    range.low = std::min(range.low, low[lane]);
    range.high = std::max(range.high, high[lane]);
  }
  for (int lane = 0; lane < LANES; lane++) range.low += invalid[lane], range.high += invalid[lane];
  return range;
}

// Rows in the type that is multiplied, padded with zeros to a multiple of the step.
template <class A>
struct Converted {
  typedef typename A::Value Value;
  Value* x;
  float *scale, *low;
  int64_t stride, width;

  void set(int64_t row, const float* from) const {
    float factor = 1, least = 0;
    if constexpr (A::QUANTIZED) {
      const Range range = range_of(from, width);
      const float span = A::UNSIGNED ? range.high - range.low : range.magnitude(), largest = A::largest(width);
      factor = span > 1e-30f ? largest / span : 0.0f;  // smaller rows are 0: the factor would overflow
      scale[row] = span / largest;
      if (A::UNSIGNED) low[row] = least = range.low;
    }
    Value* to = x + row * stride;
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) put(to + i, load(from + i), factor, least);
    for (; i < padded(width); i += LANES) {
      Value rest[LANES];
      put(rest, rest_of(from, i, width), factor, least);
      std::memcpy(to + i, rest, std::min<int64_t>(LANES, padded(width) - i) * sizeof *to);
    }
  }

  Rows<A> rows(int64_t first, int64_t last) const {
    return {x + first * stride, stride, first, last - first, scale + first, low + first};
  }

  static int64_t padded(int64_t width) { return (width + A::INPUTS - 1) / A::INPUTS * A::INPUTS; }

 private:
  static void put(Value* to, Floats v, float factor, float least) {
    if constexpr (A::QUANTIZED)
      A::put(to, round(A::UNSIGNED ? (v - least) * factor : v * factor));
    else
      A::put(to, v);
  }
};

}  // namespace
