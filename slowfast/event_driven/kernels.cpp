// The hot loops of event-driven inference: finding changed patches, and evMLP's stages on a few rows.
//
// Compiled on first use by compiled.py; every function has a plain PyTorch counterpart (gate.py, detector.py,
// network.py) that the tests compare it with. Vectors are the compiler's own, so any CPU will do.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16, VECTORS = 4, PANEL = LANES * VECTORS;  // output channels computed together
constexpr int TILE = 6;                                          // rows computed together
constexpr int CACHED = 32768;                                    // bytes of weights that stay while all rows pass
constexpr int AHEAD = 4096;                                      // bytes by which few rows' weights are fetched ahead

typedef float Floats __attribute__((vector_size(64), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2)));
typedef int8_t Bytes __attribute__((vector_size(16), aligned(1)));

inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
#ifdef __AVX512F__  // GCC makes many instructions of one here
inline Ints widen(const uint16_t* p) { return (Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
inline Ints widen(const int8_t* p) { return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
#else
inline Ints widen(const uint16_t* p) { return __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Ints); }
inline Ints widen(const int8_t* p) { return __builtin_convertvector(*reinterpret_cast<const Bytes*>(p), Ints); }
#endif
inline Floats load(const uint16_t* p) { return (Floats)(widen(p) << 16); }  // bfloat16: a float32's upper half
inline Floats load(const int8_t* p) { return __builtin_convertvector(widen(p), Floats); }
inline void store(float* p, Floats v) { *reinterpret_cast<Floats*>(p) = v; }
inline Floats all(float v) { return Floats{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }

// exp(x) for x <= 0: 2^n times a polynomial of the rest, to float32's last digits.
inline Floats exp_negative(Floats x) {
  x = x < all(-87.0f) ? all(-87.0f) : x;
  Ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, Ints);
  Floats whole = __builtin_convertvector(n, Floats);
  Floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  Ints power = (n + 127) << 23;
  return p * (Floats)power;
}

// x times the normal distribution's integral up to x; erfc by Abramowitz and Stegun 7.1.26 (error 1.5e-7).
inline Floats gelu(Floats x) {
  Floats z = (x < 0.0f ? -x : x) * 0.70710678f;
  Floats t = 1.0f / (1.0f + 0.3275911f * z);
  Floats p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  Floats tail = 0.5f * p * exp_negative(-z * z);
  return x < 0.0f ? x * tail : x - x * tail;
}

struct Layer {  // weight: panels of PANEL output channels, in each (in, PANEL); bias, scale: for all panels
  const void* weight;
  const float *bias, *scale;
  int64_t in, panels;
};

struct Norm {
  const float *weight, *bias;
  float eps;
};

enum After { NOTHING, GELU, PLUS_OUT };  // PLUS_OUT: what is at the output already is added

// A piece of a layer's weights: inputs [from, to) of a panel; what the output holds is begun by the first piece.
template <class W>
struct Piece {
  const W* weights;
  int64_t from, to, panel;
  bool first, last;
};

// soon: what to fetch meanwhile, as much as the piece.
template <class W, After after, int ROWS>
void tile(const float* x, int64_t x_stride, const Layer& layer, const Piece<W>& piece, const char* soon, float* out,
          int64_t out_stride) {
  Floats sums[ROWS][VECTORS] = {};
  float* channels = out + piece.panel * PANEL;
  bool goes_on = !piece.first || (after == PLUS_OUT && !layer.scale);
  if (goes_on)
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sums[r][v] = load(channels + r * out_stride + v * LANES);
  const W* w = piece.weights;
  for (int64_t k = piece.from; k < piece.to; k++, w += PANEL) {
    if (soon)
      for (size_t line = 0; line < PANEL * sizeof(W); line += 64, soon += 64) __builtin_prefetch(soon, 0, 2);
    Floats weights[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) weights[v] = load(w + v * LANES);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
      Floats value = all(x[r * x_stride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sums[r][v] += value * weights[v];
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      float* place = channels + r * out_stride + v * LANES;
      Floats y = sums[r][v];
      if (piece.last) {
        int64_t channel = piece.panel * PANEL + v * LANES;
        if (layer.scale) y *= load(layer.scale + channel);
        y += load(layer.bias + channel);
        if (after == GELU) y = gelu(y);
        if (after == PLUS_OUT && layer.scale) y += load(place);
      }
      store(place, y);
    }
  }
}

// Rows of x times some panels of a layer, piece by piece of what the fastest cache holds.
template <class W, After after>
void product(const float* x, int64_t x_stride, int64_t rows, const Layer& layer, int64_t first, int64_t last, float* out,
             int64_t out_stride) {
  constexpr int64_t LENGTH = CACHED / (PANEL * sizeof(W));
  const W* weights = static_cast<const W*>(layer.weight) + first * layer.in * PANEL;
  for (int64_t panel = first; panel < last; panel++) {
    for (int64_t from = 0; from < layer.in; from += LENGTH) {
      int64_t to = layer.scale ? layer.in : std::min(from + LENGTH, layer.in);  // scaled sums cannot be gone on with
      Piece<W> piece = {weights, from, to, panel, from == 0, to == layer.in};
      weights += (to - from) * PANEL;
      for (int64_t r = 0; r < rows; r += TILE) {
        // The first rows wait for the weights; the second ones bring the next piece.
        const char* soon = r == 0      ? reinterpret_cast<const char*>(piece.weights) + AHEAD
                           : r == TILE ? reinterpret_cast<const char*>(weights)
                                       : nullptr;
        const float* in = x + r * x_stride;
        float* place = out + r * out_stride;
        switch (rows - r) {
          case 1: tile<W, after, 1>(in, x_stride, layer, piece, soon, place, out_stride); break;
          case 2: tile<W, after, 2>(in, x_stride, layer, piece, soon, place, out_stride); break;
          case 3: tile<W, after, 3>(in, x_stride, layer, piece, soon, place, out_stride); break;
          case 4: tile<W, after, 4>(in, x_stride, layer, piece, soon, place, out_stride); break;
          case 5: tile<W, after, 5>(in, x_stride, layer, piece, soon, place, out_stride); break;
          default: tile<W, after, TILE>(in, x_stride, layer, piece, soon, place, out_stride);
        }
      }
      if (layer.scale) break;
    }
  }
}

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

// Threads share the panels of every layer: each weight is read by one of them. Rows are few.
template <class W>
void by_panels(const Stage& stage, const float* x, int64_t rows, float* out, float* hidden) {
  int64_t me = omp_get_thread_num(), threads = omp_get_num_threads();
  int64_t stride = stage.embed.panels * PANEL;
  auto from = [&](const Layer& layer) { return layer.panels * me / threads; };
  auto to = [&](const Layer& layer) { return layer.panels * (me + 1) / threads; };
  product<W, NOTHING>(x, stage.embed.in, rows, stage.embed, from(stage.embed), to(stage.embed), out, stride);
#pragma omp barrier
  for (int64_t b = 0; b < stage.blocks; b++) {
    const Layer &first = stage.first[b], &last = stage.last[b];
    int64_t hidden_stride = first.panels * PANEL;
    product<W, GELU>(out, stride, rows, first, from(first), to(first), hidden, hidden_stride);
#pragma omp barrier
    product<W, PLUS_OUT>(hidden, hidden_stride, rows, last, from(last), to(last), out, stride);
#pragma omp barrier
    for (int64_t r = me; r < rows; r += threads) normalize(out + r * stride, stage.width, stage.norms[b]);
#pragma omp barrier
  }
}

// Each thread takes some rows through the whole stage. Weights are few and stay in the cache.
template <class W>
void by_rows(const Stage& stage, const float* x, int64_t rows, float* out, float* hidden) {
  constexpr int64_t GROUP = 8 * TILE;
  int64_t groups = (rows + GROUP - 1) / GROUP, stride = stage.embed.panels * PANEL;
#pragma omp for schedule(dynamic)
  for (int64_t g = 0; g < groups; g++) {
    int64_t start = g * GROUP, n = std::min(GROUP, rows - start);
    float* y = out + start * stride;
    product<W, NOTHING>(x + start * stage.embed.in, stage.embed.in, n, stage.embed, 0, stage.embed.panels, y, stride);
    for (int64_t b = 0; b < stage.blocks; b++) {
      const Layer &first = stage.first[b], &last = stage.last[b];
      int64_t hidden_stride = first.panels * PANEL;
      float* h = hidden + start * hidden_stride;
      product<W, GELU>(y, stride, n, first, 0, first.panels, h, hidden_stride);
      product<W, PLUS_OUT>(h, hidden_stride, n, last, 0, last.panels, y, stride);
      for (int64_t r = 0; r < n; r++) normalize(y + r * stride, stage.width, stage.norms[b]);
    }
  }
}

template <class W>
void run_stage(const Stage& stage, const float* x, int64_t rows, float* out, float* hidden, bool share_rows, int threads) {
#pragma omp parallel num_threads(threads)
  {
    if (share_rows)
      by_rows<W>(stage, x, rows, out, hidden);
    else
      by_panels<W>(stage, x, rows, out, hidden);
  }
}

}  // namespace

extern "C" {

// Tokens of `rows` patches: x (rows, in) -> out (rows, panels * 64); hidden is room for the widest layer's rows.
// bytes: of a weight, 4 for float32, 2 for bfloat16, 1 for int8.
void stage_rows(const Stage* stage, int bytes, const float* x, int64_t rows, float* out, float* hidden, int share_rows,
                int threads) {
  if (bytes == 4)
    run_stage<float>(*stage, x, rows, out, hidden, share_rows, threads);
  else if (bytes == 2)
    run_stage<uint16_t>(*stage, x, rows, out, hidden, share_rows, threads);
  else
    run_stage<int8_t>(*stage, x, rows, out, hidden, share_rows, threads);
}

struct Frames {  // `count` frames of 3 x side x side; strides in numbers
  const float* data;
  int64_t frame, channel, row, column;
};

// mask (count, patches): 1 where a patch differs from the references, at the place `nested` says (rows * columns).
// mean: compare the mean absolute difference instead of the largest. No number counts as different.
void changed_patches(const Frames* frames, const Frames* references, int64_t count, int64_t side, int64_t patch, int mean,
                     float threshold, const int64_t* nested, uint8_t* mask, int threads) {
  int64_t n = side / patch;
  bool channels_last = frames->channel == 1;
  int64_t planes = channels_last ? 1 : 3, length = channels_last ? 3 * side : side, width = length / n;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int64_t f = 0; f < count; f++) {
    for (int64_t r = 0; r < n; r++) {
      float columns[3 * 4096];
      std::memset(columns, 0, length * sizeof(float));
      for (int64_t plane = 0; plane < planes; plane++) {
        for (int64_t y = r * patch; y < (r + 1) * patch; y++) {
          const float* a = frames->data + f * frames->frame + plane * frames->channel + y * frames->row;
          const float* b = references->data + f * references->frame + plane * references->channel + y * references->row;
          if (mean) {
#pragma omp simd
            for (int64_t i = 0; i < length; i++) columns[i] += std::fabs(a[i] - b[i]);
          } else {
#pragma omp simd
            for (int64_t i = 0; i < length; i++) columns[i] += std::fabs(a[i] - b[i]) <= threshold ? 0.0f : 1.0f;
          }
        }
      }
      float limit = mean ? threshold * (3 * patch * patch) : 0.0f;
      for (int64_t c = 0; c < n; c++) {
        float sum = 0;
        for (int64_t i = c * width; i < (c + 1) * width; i++) sum += columns[i];
        mask[f * n * n + nested[r * n + c]] = !(sum <= limit);
      }
    }
  }
}

// The patches at `places` (frame * n n + row * n + column) as rows (y, x, channel) of `out`; written to `held` too.
void take_patches(const Frames* frames, const Frames* held, const int64_t* places, int64_t rows, int64_t side,
                  int64_t patch, float* out, int threads) {
  int64_t n = side / patch;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 64)
  for (int64_t i = 0; i < rows; i++) {
    int64_t f = places[i] / (n * n), r = places[i] / n % n, c = places[i] % n;
    float* row = out + i * patch * patch * 3;
    for (int64_t y = r * patch; y < (r + 1) * patch; y++) {
      const float* a = frames->data + f * frames->frame + y * frames->row;
      float* b = held ? const_cast<float*>(held->data) + f * held->frame + y * held->row : nullptr;
      for (int64_t x = c * patch; x < (c + 1) * patch; x++) {
        for (int64_t channel = 0; channel < 3; channel++) {
          float value = a[x * frames->column + channel * frames->channel];
          *row++ = value;
          if (b) b[x * held->column + channel * held->channel] = value;
        }
      }
    }
  }
}
}
