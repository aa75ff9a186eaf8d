// A stage of an evMLP on any number of rows: linear layers, GELU, residual connections and LayerNorm in one call.
//
// Tests compare this with the PyTorch implementation in network.py.

#include <memory>

#include <omp.h>

#include "rows.h"

extern "C" {

struct Stage {
  int64_t width, blocks, cached;  // cached: whether the weights stay in the cache of a core
  Layer embed;
  const Layer *first, *last;  // of each block's MLP
  const Norm* norms;
};
}

namespace {

constexpr int64_t CACHED_GROUP = 48, MAX_GROUP = 96;  // rows per thread and pass: of cached weights, and otherwise
constexpr int64_t MIN_ROWS_PER_THREAD = 32;  // with fewer, threads share weights and synchronize after every layer
constexpr int OWN_ROWS = 2 * TILE;  // up to so many rows are normalized by every thread
constexpr int64_t PAD = 64;  // bytes after a row: rows a power of two apart would compete for the same lines of the cache

// Work of one thread in a stage: part of the panels of every layer for part of the rows. Panels are split first, so
// that every weight is read by as few threads as possible.
struct Share {
  int64_t me = 0, threads = 1, panel_parts = 1, from = 0, to;

  explicit Share(int64_t rows) : to(rows) {}

  Share(const Stage& stage, int64_t rows, int64_t me, int64_t threads) : me(me), threads(threads) {
    panel_parts = std::min(threads, stage.embed.panels);
    int64_t row_parts = std::max<int64_t>(std::min(threads / panel_parts, rows / TILE), 1), part = me / panel_parts;
    from = part < row_parts ? rows * part / row_parts : rows;
    to = part < row_parts ? rows * (part + 1) / row_parts : rows;
  }

  int64_t first_panel(const Layer& layer) const { return layer.panels * (me % panel_parts) / panel_parts; }
  int64_t last_panel(const Layer& layer) const { return layer.panels * (me % panel_parts + 1) / panel_parts; }

  void wait() const {
    if (threads > 1) {
#pragma omp barrier
    }
  }
};

// Scratch memory of a thread; it grows on demand and is reused by later calls.
char* scratch(int64_t bytes) {
  thread_local std::unique_ptr<char[]> kept;
  thread_local int64_t size = 0;
  if (size < bytes) kept.reset(new char[size = bytes]);
  return kept.get();
}

// Takes arrays from the scratch memory of a team of threads; only counts the bytes if there is none.
struct Arena {
  char* memory;
  int64_t me, threads, used = 0;

  // Returns an array that all threads share, or with `own` one of this thread.
  template <class T>
  T* take(int64_t count, bool own) {
    int64_t start = used, bytes = (count * sizeof(T) + 63) / 64 * 64;
    used += bytes * (own ? threads : 1);
    return memory ? reinterpret_cast<T*>(memory + start + (own ? me * bytes : 0)) : nullptr;
  }
};

// Activations of a stage, as one thread sees them.
template <class A>
struct Activations {
  typedef typename A::Value Value;
  static constexpr bool COPIES = sizeof(Value) < sizeof(float);  // else the float32 rows are multiplied
  bool own;                    // every thread normalizes and converts all rows: for few, faster than waiting
  float *sums, *tokens, *mlp;  // partial sums; tokens and hidden activations of a block in float32
  int64_t stride, mlp_stride;
  Converted<A> x, y, hidden;   // rows that are multiplied: inputs, tokens, hidden activations

  Activations(const Stage& stage, const float* in, int64_t rows, float* out, int64_t out_stride, Arena& arena)
      : own(arena.threads > 1 && rows <= OWN_ROWS), tokens(out), stride(out_stride) {
    const Layer first = stage.blocks ? stage.first[0] : Layer{}, last = stage.blocks ? stage.last[0] : Layer{};
    const int64_t features = first.panels * PANEL;
    sums = arena.take<float>(rows * PANEL, true);
    if (own) tokens = arena.take<float>(rows * stride, true);
    mlp_stride = features + PAD / sizeof(float);
    mlp = arena.take<float>(rows * mlp_stride, false);
    if constexpr (COPIES) {
      x = copies(rows, stage.embed.in, stage.embed.in, own, arena);
      y = copies(rows, stage.width, stage.width, own, arena);
      hidden = copies(rows, last.in, features, own && A::QUANTIZED, arena);
    } else {
      x = {const_cast<float*>(in), nullptr, nullptr, stage.embed.in, stage.embed.in};
      y = {tokens, nullptr, nullptr, stride, stage.width};
      hidden = {mlp, nullptr, nullptr, mlp_stride, last.in};
    }
  }

 private:
  static Converted<A> copies(int64_t rows, int64_t width, int64_t space, bool own, Arena& arena) {
    int64_t length = Converted<A>::padded(space) + PAD / sizeof(Value);
    Value* values = arena.take<Value>(rows * length, own);
    float* scale = arena.take<float>(rows, own);
    return {values, scale, arena.take<float>(rows, own), length, width};
  }
};

// Multiplies this thread's share of rows and panels. next: layer that follows.
template <class A, class W, class Put>
void multiply(const Share& share, const Converted<A>& rows, const Layer& layer, const Layer& next, float* sums,
              const Put& put) {
  if (share.from >= share.to) return;
  const Rows<A> own = rows.rows(share.from, share.to);
  const int64_t first = share.first_panel(layer), last = share.last_panel(layer), after = share.first_panel(next);
  const void* weights = Stored<A, W>(next).at(after, 0);
  if (segments_of<A>(layer.in) == 1) {
    multiply_panels<A, W>(own, layer, first, last, sums, weights, put);
  } else if (own.count <= STREAMED_ROWS<A>) {
    stream_panels<A, W>(own, layer, first, last, sums, put);
    prefetch_layer<A, W>(next, after);
  } else {
    multiply_segments<A, W>(own, layer, first, last, sums, weights, put);
  }
}

// Runs a thread's share of a stage: x (rows, in) -> out (rows, stride). Linear layers that add up write to `out`, which
// LayerNorm takes to the tokens.
template <class A, class W>
void run_stage(const Stage& stage, const float* x, int64_t rows, float* out, int64_t stride, const Share& share,
               const Activations<A>& act) {
  constexpr bool COPIES = Activations<A>::COPIES;
  const int64_t first_row = act.own ? 0 : share.me, row_step = act.own ? 1 : share.threads;
  auto each_row = [&](auto&& f) {
    for (int64_t r = first_row; r < rows; r += row_step) f(r);
    if (!act.own) share.wait();
  };
  if constexpr (COPIES) each_row([&](int64_t r) { act.x.set(r, x + r * stage.embed.in); });
  multiply<A, W>(share, act.x, stage.embed, stage.blocks ? stage.first[0] : stage.embed, act.sums,
                 [&](int64_t r, int64_t c, Floats v) { store(out + r * stride + c, v); });
  for (int64_t b = 0; b < stage.blocks; b++) {
    share.wait();
    each_row([&](int64_t r) {
      float* tokens = act.tokens + r * stride;
      if (b > 0)
        normalize(out + r * stride, stage.width, stage.norms[b - 1], tokens);
      else if (act.own)
        std::memcpy(tokens, out + r * stride, stage.width * sizeof(float));
      if constexpr (COPIES) act.y.set(r, tokens);
    });
    multiply<A, W>(share, act.y, stage.first[b], stage.last[b], act.sums, [&](int64_t r, int64_t c, Floats v) {
      if constexpr (COPIES && !A::QUANTIZED)
        A::put(act.hidden.x + r * act.hidden.stride + c, gelu(v));
      else
        store(act.mlp + r * act.mlp_stride + c, gelu(v));
    });
    share.wait();
    if constexpr (A::QUANTIZED) each_row([&](int64_t r) { act.hidden.set(r, act.mlp + r * act.mlp_stride); });
    multiply<A, W>(share, act.hidden, stage.last[b], b + 1 < stage.blocks ? stage.first[b + 1] : stage.embed, act.sums,
                   [&](int64_t r, int64_t c, Floats v) {
                     store(out + r * stride + c, v + load(act.tokens + r * stride + c));
                   });
  }
  share.wait();
  if (stage.blocks)
    for (int64_t r = share.me; r < rows; r += share.threads)
      normalize(out + r * stride, stage.width, stage.norms[stage.blocks - 1], out + r * stride);
}

// Runs a stage on a team of threads that splits every layer.
template <class A, class W>
void share_layers(const Stage& stage, const float* x, int64_t rows, float* out, int64_t stride, int threads) {
  Arena needed = {nullptr, 0, threads};
  Activations<A>(stage, x, rows, out, stride, needed);
  char* memory = scratch(needed.used);
#pragma omp parallel num_threads(threads)
  {
    const Share share(stage, rows, omp_get_thread_num(), omp_get_num_threads());
    Arena arena = {memory, share.me, share.threads};
    run_stage<A, W>(stage, x, rows, out, stride, share, Activations<A>(stage, x, rows, out, stride, arena));
  }
}

// Distributes groups of rows over the threads, each of which runs the full stage without synchronization.
template <class A, class W>
void share_rows(const Stage& stage, const float* x, int64_t rows, float* out, int64_t stride, int threads,
                int64_t group) {
  int64_t groups = (rows + group - 1) / group;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t g = 0; g < groups; g++) {
    int64_t start = g * group, n = std::min(group, rows - start);
    const float* in = x + start * stage.embed.in;
    float* to = out + start * stride;
    Arena needed = {nullptr, 0, 1};
    Activations<A>(stage, in, n, to, stride, needed);
    Arena arena = {scratch(needed.used), 0, 1};
    run_stage<A, W>(stage, in, n, to, stride, Share(n), Activations<A>(stage, in, n, to, stride, arena));
  }
}

template <class A, class W>
void run(const Stage& stage, const float* x, int64_t rows, float* out, int64_t stride, int threads, int64_t group) {
  if (group)
    share_rows<A, W>(stage, x, rows, out, stride, threads, group);
  else
    share_layers<A, W>(stage, x, rows, out, stride, threads);
}

// Rows that a thread processes at a time, or 0 if the threads share the weights.
int64_t group_of(const Stage& stage, int64_t rows, int threads) {
  if (!stage.cached && rows < threads * MIN_ROWS_PER_THREAD) return 0;
  const int64_t each = (rows + threads * TILE - 1) / (threads * TILE) * TILE;
  return std::min(each, stage.cached ? CACHED_GROUP : MAX_GROUP);
}

}  // namespace

extern "C" {

int panel() { return PANEL; }

int tile_rows() { return TILE; }

// Input features per step for weights of so many bytes: 4 for float32, 2 for bfloat16, 1 for int8.
int inputs_per_step(int bytes) { return bytes == 4 ? Singles::INPUTS : bytes == 2 ? Short::INPUTS : Bytes::INPUTS; }

// Segments of weights of so many bytes for `in` input features.
int segments(int bytes, int64_t in) {
  return bytes == 4 ? segments_of<Singles>(in) : bytes == 2 ? segments_of<Short>(in) : segments_of<Bytes>(in);
}

// Largest number in rows that are multiplied by int8 weights.
int largest_quantized(int64_t inputs) { return Bytes::largest(inputs); }

// Whether these rows are unsigned.
int quantized_unsigned() { return Bytes::UNSIGNED; }

// Steps of a row whose products with int8 weights are added up in int16, 1 if they are not.
int steps_together() { return Bytes::TOGETHER; }

// Computes the tokens of `rows` patches: x (rows, in) -> out (rows, stride), stride >= panels * PANEL.
// group: rows that a thread processes at a time, or 0 if the threads share the weights; negative to choose the faster.
void stage_rows(const Stage* stage, int bytes, const float* x, int64_t rows, float* out, int64_t stride, int threads,
                int64_t group) {
  if (group < 0) group = group_of(*stage, rows, threads);
  if (bytes == 4)
    run<Singles, float>(*stage, x, rows, out, stride, threads, group);
  else if (bytes == 2)
    run<Short, uint16_t>(*stage, x, rows, out, stride, threads, group);
  else
    run<Bytes, int8_t>(*stage, x, rows, out, stride, threads, group);
}
}
