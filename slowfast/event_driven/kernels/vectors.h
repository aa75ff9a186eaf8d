// Vectors of the CPU's register size, as compiler vector types, which work on any CPU.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
#if defined(__AVX512F__)  // GCC emits many instructions for __builtin_convertvector here
inline Ints widen(const uint16_t* p) { return (Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
inline Ints widen(const int8_t* p) { return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
#elif defined(__AVX2__)
inline Ints widen(const uint16_t* p) { return (Ints)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)); }
inline Ints widen(const int8_t* p) { return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
#else
inline Ints widen(const uint16_t* p) { return __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Ints); }
inline Ints widen(const int8_t* p) { return __builtin_convertvector(*reinterpret_cast<const Bytes*>(p), Ints); }
#endif
inline Floats load(const uint16_t* p) { return (Floats)(widen(p) << 16); }  // bfloat16 is the upper half of float32
inline Floats load(const int8_t* p) { return __builtin_convertvector(widen(p), Floats); }
inline void store(float* p, Floats v) { *reinterpret_cast<Floats*>(p) = v; }
inline Floats all(float v) { return Floats{} + v; }

// 1 / x to float32 precision, for x >= 1.
inline Floats inverse(Floats x) {
#ifdef __AVX512F__  // a 14-bit estimate and a Newton step are faster than a division
  Floats y = (Floats)_mm512_rcp14_ps((__m512)x);
  return y * (2.0f - x * y);
#else
  return 1.0f / x;
#endif
}

// x times the cumulative distribution function of the standard normal. A rational fit 0.5 + x P(x^2) / Q(x^2) is exact
// to 3e-8 from -5.6 to 5.6; beyond, the function is 0 or 1 in float32.
inline Floats gelu(Floats x) {
  const Floats end = all(5.6f);
  x = x < -end ? -end : x;
  Floats c = x > end ? end : x;
  Floats s = c * c;
  Floats p = s * 1.080234427e-10f - 2.199770894e-8f;
  p = p * s + 3.361889933e-6f;
  p = p * s + 1.824914585e-4f;
  p = p * s + 4.587699278e-3f;
  p = p * s + 3.711472565e-2f;
  p = p * s + 3.989421258e-1f;
  Floats q = s * 6.625623027e-5f + 1.901609057e-3f;
  q = q * s + 2.978728097e-2f;
  q = q * s + 2.596969399e-1f;
  q = q * s + 1.0f;
  return x * (0.5f + c * p * inverse(q));
}

}  // namespace
