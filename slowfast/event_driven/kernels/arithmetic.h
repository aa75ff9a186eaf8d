// Arithmetic of the linear layers: a step multiplies 4 bytes of a row by 4 bytes of the weights of each output feature.
//
// A structure of arithmetic has
//   Value     type of the rows as they are multiplied
//   Sum       vector of sums, one per output feature
//   INPUTS    input features per step
//   TOGETHER  steps whose products are added up before they are added to the sum
//   QUANTIZED whether rows are integers with a scale per row; if they are UNSIGNED, also with a lower end of the range
//   weights() vector of the weights of a step, converted in registers from the type in which they are stored

#pragma once

#include "vectors.h"

namespace {

// One float32 input feature per step.
struct Singles {
  typedef float Value;
  typedef Floats Sum;
  static constexpr int INPUTS = 1, TOGETHER = 1;
  static constexpr bool QUANTIZED = false, UNSIGNED = false;
  static Floats broadcast(const float* x) { return all(*x); }
  template <class W>
  static Floats weights(const W* w) {
    return load(w);
  }
  static Floats multiply_add(Floats sum, Floats x, Floats w) { return sum + x * w; }
  static void put(float* place, Floats v) { store(place, v); }
};

#if INTRINSICS == 512 && defined(__AVX512BF16__)
#define HAS_PAIRS
// Two bfloat16 input features per step, accumulated in float32: twice the multiply-adds per instruction.
struct Pairs {
  typedef uint16_t Value;
  typedef Floats Sum;
  static constexpr int INPUTS = 2, TOGETHER = 1;
  static constexpr bool QUANTIZED = false, UNSIGNED = false;
  static Floats broadcast(const uint16_t* x) { return (Floats)_mm512_set1_epi32(read<int32_t>(x)); }
  static Floats weights(const uint16_t* w) { return (Floats)_mm512_loadu_si512(w); }
  static Floats multiply_add(Floats sum, Floats x, Floats w) {
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
  }
  static void put(uint16_t* place, Floats v) {
    _mm256_storeu_si256((__m256i*)place, (__m256i)_mm512_cvtneps_pbh((__m512)v));
  }
};
#endif

// Two int16 input features per step and int8 weights, accumulated in int32, exactly: rows are quantized as finely as
// their length permits without overflow. Twice the multiply-adds per instruction of float32.
struct Words {
  typedef int16_t Value;
  typedef Ints Sum;
  static constexpr int INPUTS = 2, TOGETHER = 1;
  static constexpr bool QUANTIZED = true, UNSIGNED = false;
  static int32_t largest(int64_t inputs) { return std::min<int64_t>(32767, INT32_MAX / 127 / inputs); }
  static Shorts broadcast(const int16_t* x) { return (Shorts)all(read<int32_t>(x)); }
  static Shorts weights(const int8_t* w) { return widen(w); }
  static Ints multiply_add(Ints sum, Shorts x, Shorts w) { return sum + multiply_pairs(x, w); }
  static void put(int16_t* place, Ints v) { narrow(place, v); }
};

#ifdef HAS_QUADS
// Four uint8 input features per step and int8 weights, accumulated in int32, exactly for up to 66,000 features: four
// times the multiply-adds per instruction of float32. Rows are quantized from their smallest to their largest number:
// after GELU, which is hardly ever negative, twice as finely as from minus the largest magnitude.
struct Quads {
  typedef uint8_t Value;
  typedef Ints Sum;
  static constexpr int INPUTS = 4, TOGETHER = 1;
  static constexpr bool QUANTIZED = true, UNSIGNED = true;
  static int32_t largest(int64_t) { return 255; }
  static Ints broadcast(const uint8_t* x) { return all(read<int32_t>(x)); }
  static Ints weights(const int8_t* w) { return read<Ints>(w); }
  static Ints multiply_add(Ints sum, Ints x, Ints w) { return add_quads(sum, x, w); }
  static void put(uint8_t* place, Ints v) { narrow(place, v); }
};
#endif

#ifdef HAS_BOUNDED_QUADS
// The same without VNNI: the products of two steps are first added up in int16, which takes 5 instructions per 64
// products instead of 8 by Words. Weights are so small that these sums fit (bounded_int8_weights in linear_kernels.py).
struct BoundedQuads {
  typedef uint8_t Value;
  typedef Ints Sum;
  static constexpr int INPUTS = 4, TOGETHER = 2;
  static constexpr bool QUANTIZED = true, UNSIGNED = true;
  static int32_t largest(int64_t) { return 255; }
  static Ints broadcast(const uint8_t* x) { return all(read<int32_t>(x)); }
  static Ints weights(const int8_t* w) { return read<Ints>(w); }
  template <class... More>
  static Ints multiply_add(Ints sum, Ints x, Ints w, More... next) {
    return add_bounded_quads(sum, x, w, next...);
  }
  static void put(uint8_t* place, Ints v) { narrow(place, v); }
};
#endif

// Arithmetic for bfloat16 and for int8 weights.
#ifdef HAS_PAIRS
typedef Pairs Short;
#else
typedef Singles Short;
#endif
#if defined(HAS_QUADS)
typedef Quads Bytes;
#elif defined(HAS_BOUNDED_QUADS)
typedef BoundedQuads Bytes;
#else
typedef Words Bytes;
#endif

}  // namespace
