// Arithmetic of the linear layers: a step multiplies 4 bytes of a row by 4 bytes of the weights of each output feature.

#pragma once

#include "vectors.h"

namespace {

// One float32 input feature per step.
struct Singles {
  typedef float Value;
  static constexpr int INPUTS = 1;
  static Floats broadcast(const float* x) { return all(*x); }
  static Floats multiply_add(Floats sum, Floats x, const char* w) {
    return sum + x * load(reinterpret_cast<const float*>(w));
  }
  static void put(float* place, Floats v) { store(place, v); }
  static void unpack(const float*, char*) {}  // never called: stored as they are multiplied
  static void unpack(const uint16_t* w, char* to) { store(reinterpret_cast<float*>(to), load(w)); }
  static void unpack(const int8_t* w, char* to) { store(reinterpret_cast<float*>(to), load(w)); }
};

#ifdef __AVX512BF16__
// Two bfloat16 input features per step, accumulated in float32: twice the multiply-adds per instruction.
struct Pairs {
  typedef uint16_t Value;
  static constexpr int INPUTS = 2;
  static Floats broadcast(const uint16_t* x) {
    int32_t both;
    std::memcpy(&both, x, sizeof both);
    return (Floats)_mm512_set1_epi32(both);
  }
  static Floats multiply_add(Floats sum, Floats x, const char* w) {
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)_mm512_loadu_si512(w));
  }
  static void put(uint16_t* place, Floats v) {
    _mm256_storeu_si256((__m256i*)place, (__m256i)_mm512_cvtneps_pbh((__m512)v));
  }
  static void unpack(const uint16_t*, char*) {}  // never called: stored as they are multiplied
  static void unpack(const int8_t* w, char* to) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)load(w + LANES), (__m512)load(w)));
  }
};
#endif

}  // namespace
