// Vectors of the CPU's register size, as compiler vector types, which work on any CPU.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __x86_64__
#include <immintrin.h>
#endif

// Bits of a vector, and of the vectors for which intrinsics are used.
#if defined(SLOWFAST_PORTABLE_VNNI)  // for tests on any CPU: what AVX512_VNNI computes, without its instructions
#define VECTOR_BITS 512
#define INTRINSICS 0
#elif defined(__AVX512F__) && defined(__AVX512BW__)
#define VECTOR_BITS 512
#define INTRINSICS 512
#elif defined(__AVX2__)
#define VECTOR_BITS 256
#define INTRINSICS 256
#elif defined(__x86_64__)
#define VECTOR_BITS 128
#define INTRINSICS 128
#else
#define VECTOR_BITS 128
#define INTRINSICS 0
#endif

namespace {

constexpr int LANES = VECTOR_BITS / 32;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef int16_t Shorts __attribute__((vector_size(4 * LANES)));  // 2 LANES
// In memory:
typedef uint16_t StoredHalves __attribute__((vector_size(2 * LANES)));  // LANES
typedef int16_t StoredShorts __attribute__((vector_size(2 * LANES)));   // LANES
typedef uint8_t StoredBytes __attribute__((vector_size(LANES)));        // LANES
typedef int8_t StoredPairs __attribute__((vector_size(2 * LANES)));     // 2 LANES

// Reads and writes values at any address. (Copies by memcpy would keep sums out of the registers.)
template <class V>
struct __attribute__((packed, may_alias)) Anywhere {
  V value;
};
template <class V>
inline V read(const void* p) {
  return static_cast<const Anywhere<V>*>(p)->value;
}
template <class V>
inline void write(void* p, V v) {
  static_cast<Anywhere<V>*>(p)->value = v;
}

// Keeps the compiler from loading a value again at every use.
template <class V>
inline void keep_in_register(V& v) {
#if INTRINSICS == 512
  asm("" : "+v"(v));
#elif INTRINSICS
  asm("" : "+x"(v));
#else
  (void)v;
#endif
}

inline Floats load(const float* p) { return read<Floats>(p); }
inline Floats load(const uint16_t* p) {  // bfloat16 is the upper half of float32
#if INTRINSICS == 512  // GCC emits many instructions for __builtin_convertvector here
  Ints wide = (Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
#elif INTRINSICS == 256
  Ints wide = (Ints)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
#else
  Ints wide = __builtin_convertvector(read<StoredHalves>(p), Ints);
#endif
  return (Floats)(wide << 16);
}
inline Shorts widen(const int8_t* p) {
#if INTRINSICS == 512
  return (Shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p));
#elif INTRINSICS == 256
  return (Shorts)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
#else
  return __builtin_convertvector(read<StoredPairs>(p), Shorts);
#endif
}
inline void store(float* p, Floats v) { write(p, v); }
inline Floats all(float v) { return v - Floats{}; }  // adding to 0 would change -0, and cost an instruction
inline Ints all(int32_t v) { return Ints{} + v; }

// Converts to a smaller type, which must hold the values.
inline void narrow(int16_t* p, Ints v) {
#if INTRINSICS == 256
  write(p, _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1)));
#else
  write(p, __builtin_convertvector(v, StoredShorts));
#endif
}
inline void narrow(uint8_t* p, Ints v) {
#if INTRINSICS == 256
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words, words));
#else
  write(p, __builtin_convertvector(v, StoredBytes));
#endif
}

// x rounded to the nearest integer, for |x| < 2^22.
inline Ints round(Floats x) {
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: the sum has no fraction bits
  return (Ints)(x + magic) - (Ints)magic;
}

// Products of pairs of int16, added up.
inline Ints multiply_pairs(Shorts x, Shorts y) {
#if INTRINSICS == 512
  return (Ints)_mm512_madd_epi16((__m512i)x, (__m512i)y);
#elif INTRINSICS == 256
  return (Ints)_mm256_madd_epi16((__m256i)x, (__m256i)y);
#elif INTRINSICS == 128
  return (Ints)_mm_madd_epi16((__m128i)x, (__m128i)y);
#else  // the first of a pair is the lower half, on little-endian CPUs
  Ints a = (Ints)x, b = (Ints)y;
  return (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

#if INTRINSICS == 512 && defined(__AVX512VNNI__)
#define HAS_QUADS
inline Ints add_quads(Ints sum, Ints x, Ints w) {
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
}
#elif INTRINSICS == 256 && defined(__AVXVNNI__)
#define HAS_QUADS
inline Ints add_quads(Ints sum, Ints x, Ints w) {
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
}
#elif defined(SLOWFAST_PORTABLE_VNNI)
#define HAS_QUADS
// Adds the products of four uint8 of x and int8 of w.
inline Ints add_quads(Ints sum, Ints x, Ints w) {
  for (int shift = 0; shift < 32; shift += 8) sum += (x >> shift & 255) * (w << (24 - shift) >> 24);
  return sum;
}
#endif

#if INTRINSICS == 256 && !defined(HAS_QUADS)
#define HAS_BOUNDED_QUADS
// Adds the products of four uint8 of x and int8 of w, and of x2 and w2. The sums of products in a half of four bytes of
// both must fit int16, or they are saturated.
inline Ints add_bounded_quads(Ints sum, Ints x, Ints w, Ints x2, Ints w2) {
  __m256i halves = _mm256_maddubs_epi16((__m256i)x, (__m256i)w);
  halves = _mm256_add_epi16(halves, _mm256_maddubs_epi16((__m256i)x2, (__m256i)w2));
  return sum + (Ints)_mm256_madd_epi16(halves, _mm256_set1_epi16(1));
}
inline Ints add_bounded_quads(Ints sum, Ints x, Ints w) {
  __m256i halves = _mm256_maddubs_epi16((__m256i)x, (__m256i)w);
  return sum + (Ints)_mm256_madd_epi16(halves, _mm256_set1_epi16(1));
}
#endif

// 1 / x to float32 precision, for x >= 1. An estimate to 12 bits or more and a Newton step are faster than a division.
inline Floats inverse(Floats x) {
#if INTRINSICS == 512
  Floats y = (Floats)_mm512_rcp14_ps((__m512)x);
  return y * (2.0f - x * y);
#elif INTRINSICS == 256
  Floats y = (Floats)_mm256_rcp_ps((__m256)x);
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
