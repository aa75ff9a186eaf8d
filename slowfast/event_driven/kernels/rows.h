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

// Returns the largest magnitude in a row; infinity or NaN if the row contains one.
inline float magnitude(const float* x, int64_t width) {
  // As integers, the bits of positive floats have the same order, and those of infinity and NaN are larger.
  Ints most = {};
  for (int64_t i = 0; i < width; i += LANES) {
    Ints bits = (Ints)(i + LANES <= width ? load(x + i) : rest_of(x, i, width)) & 0x7fffffff;
    most = bits > most ? bits : most;
  }
  int32_t bits = 0;
  for (int lane = 0; lane < LANES; lane++) bits = std::max(bits, most[lane]);
  return read<float>(&bits);
}

// Rows in the type that is multiplied, padded with zeros to a multiple of the step.
template <class A>
struct Converted {
  typedef typename A::Value Value;
  Value* x;
  float* scales;
  int64_t stride, width;

  void set(int64_t row, const float* from) const {
    Floats factor = all(1.0f);
    if constexpr (A::QUANTIZED) {
      const float most = magnitude(from, width), largest = A::largest(width);
      factor = all(most > 0 ? largest / most : 0.0f);
      scales[row] = most / largest;
    }
    Value* to = x + row * stride;
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) put(to + i, load(from + i), factor);
    for (; i < padded(width); i += LANES) {
      Value rest[LANES];
      put(rest, rest_of(from, i, width), factor);
      std::memcpy(to + i, rest, std::min<int64_t>(LANES, padded(width) - i) * sizeof *to);
    }
  }

  Rows<A> rows(int64_t first, int64_t last) const { return {x + first * stride, stride, first, last - first, scales + first}; }

  static int64_t padded(int64_t width) { return (width + A::INPUTS - 1) / A::INPUTS * A::INPUTS; }

 private:
  static void put(Value* to, Floats v, Floats factor) {
    if constexpr (A::QUANTIZED)
      A::put(to, round(v * factor));
    else
      A::put(to, v);
  }
};

}  // namespace
